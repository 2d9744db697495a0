"""Messages about leases and their answers.

`decode` checks each field and that the fields of one message agree with each other. Whether a lease is known or a
version current is for whoever keeps the account; `Candidates.check` is the part of it that needs no state.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from common.errors import ProtocolError
from common.protocol.array_fields import Scores, TypedArray, check_histories
from common.protocol.fields import At, Leases, Mask, Maybe, Natural, Real, Seconds
from common.protocol.limits import Limits
from common.protocol.sessions import SCORES, Welcome
from common.protocol.values import Array, check_mask, unpack_mask


@dataclass(frozen=True, slots=True)
class Lease:
    """Trainer to scorer: score the positions [start, stop) of the order, or those of them whose bit is 1 in `mask`.

    An empty mask wants all of them. Weights older than (generation, oldest_step) are not good enough; the answer is
    due `deadline_s` seconds after arrival. `histories` (num, H) float32, for scorers that predict losses: past losses
    of each wanted position, the most recent last, NaN for none.
    """

    lease: Natural
    generation: Natural
    start: Natural
    stop: Natural
    mask: Annotated[bytes, Mask()]
    oldest_step: Natural
    deadline_s: Seconds
    histories: Annotated[Array | None, Maybe(TypedArray("float32", 2))] = None

    def check_fields(self, limits: Limits) -> None:
        if not 0 < self.stop - self.start <= limits.max_chunk:
            raise ProtocolError(f"[{self.start}, {self.stop}) must hold 1 to {limits.max_chunk} positions")
        if self.mask:
            check_mask(self.mask, self.stop - self.start)
        if self.histories is not None:
            check_histories(self.histories, self.num)

    @property
    def num(self) -> int:
        """How many positions want a score."""
        return int.from_bytes(self.mask, "little").bit_count() if self.mask else self.stop - self.start

    def positions(self) -> np.ndarray:
        """(num,) int64, ascending: the positions that want a score. Answers list their candidates in this order."""
        positions = np.arange(self.start, self.stop, dtype=np.int64)
        return positions[unpack_mask(self.mask, len(positions))] if self.mask else positions


@dataclass(frozen=True, slots=True)
class Candidates:
    """Scorer to trainer: the scores of one lease. n = `num`, the positions that the lease wanted, in its order.

    `version` was resident when the forward pass started. `dropped` is a bit mask of the candidates without a finite
    score (empty: none); the values in their places mean nothing. `loss_mean` and `accuracy` (0 to 1) are over the
    others, None where unknown; so is `tau`, the variance reduction of their gradient-norm bounds (>= 0; 1803.00942).
    `read_s` and `score_s` are what fetching and the forward pass took.
    As payload: `inputs` (m, ...) and `targets` (m, ...), m = n, or `rows` (m,) int32 says which candidates they are.
    As embeddings: `errors` (n, C), softmax - onehot, and `features` (n, D), inputs of the head, both float16.
    """

    lease: Natural
    version: At
    num: Natural
    dropped: Annotated[bytes, Mask()]
    scores: Annotated[tuple[Array, ...], Scores(len(SCORES))]
    loss_mean: Annotated[float | None, Maybe(Real())]
    accuracy: Annotated[float | None, Maybe(Real(0.0, 1.0))]
    read_s: Seconds
    score_s: Seconds
    rows: Annotated[Array | None, Maybe(TypedArray("int32", 1))] = None
    inputs: Annotated[Array | None, Maybe(TypedArray(least_dims=1))] = None
    targets: Annotated[Array | None, Maybe(TypedArray(least_dims=1))] = None
    tau: Annotated[float | None, Maybe(Real(0.0))] = None
    errors: Annotated[Array | None, Maybe(TypedArray("float16", 2))] = None
    features: Annotated[Array | None, Maybe(TypedArray("float16", 2))] = None

    def check_fields(self, limits: Limits) -> None:
        if self.num > limits.max_chunk:
            raise ProtocolError(f"num must be at most {limits.max_chunk}, got {self.num}")
        if self.dropped:
            check_mask(self.dropped, self.num)
        for scores in self.scores:
            if scores.shape != (self.num,):
                raise ProtocolError(f"num is {self.num}, got {scores.shape[0]} scores")
        self._check_payload_fields()
        self._check_embedding_fields()

    def _check_payload_fields(self) -> None:
        if (self.inputs is None) != (self.targets is None):
            raise ProtocolError("inputs and targets come together or not at all")
        if self.inputs is None or self.targets is None:
            if self.rows is not None:
                raise ProtocolError("rows come with inputs and targets")
            return
        if self.rows is not None and (len(self.rows.shape) != 1 or self.rows.shape[0] > self.num):
            raise ProtocolError(f"rows must be at most {self.num} numbers, got shape {self.rows.shape}")
        expected = self.num if self.rows is None else self.rows.shape[0]
        num_inputs, num_targets = self.inputs.shape[0], self.targets.shape[0]
        if num_inputs != expected or num_targets != expected:
            raise ProtocolError(f"a payload of {expected} samples, got {num_inputs} inputs and {num_targets} targets")

    def _check_embedding_fields(self) -> None:
        if (self.errors is None) != (self.features is None):
            raise ProtocolError("errors and features come together or not at all")
        for array in (self.errors, self.features):
            if array is not None and (len(array.shape) != 2 or array.shape[0] != self.num or array.shape[1] == 0):
                raise ProtocolError(f"errors and features are ({self.num}, 1 or more), got {array.shape}")

    def dropped_flags(self) -> np.ndarray:
        """(num,) bool: candidates without a finite score."""
        return unpack_mask(self.dropped, self.num) if self.dropped else np.zeros(self.num, dtype=np.bool_)

    def finite_scores(self) -> tuple[np.ndarray, ...]:
        """(num,) float32 for each score, NaN where dropped. Shares the frames' memory where nothing is dropped."""
        arrays = tuple(scores.as_numpy() for scores in self.scores)
        if not self.dropped:
            return arrays
        dropped = self.dropped_flags()
        return tuple(np.where(dropped, np.float32(np.nan), array) for array in arrays)

    def check(self, lease: Lease, welcome: Welcome) -> None:
        """What this must be as the answer to that lease in that session, apart from its age.

        Raises:
            ProtocolError: another lease or generation; another number of candidates or scores than asked for; scores
                or embeddings that are neither finite nor listed as dropped; embeddings or a payload other than agreed,
                rows out of range, repeated or dropped.
        """
        if self.lease != lease.lease or self.version.generation != lease.generation:
            raise ProtocolError(
                f"candidates of lease {self.lease}, generation {self.version.generation}, "
                f"answer lease {lease.lease}, generation {lease.generation}"
            )
        if self.num != lease.num:
            raise ProtocolError(f"lease {lease.lease} wants {lease.num} scores, got {self.num}")
        if len(self.scores) != len(welcome.scores):
            raise ProtocolError(f"the scores are {', '.join(welcome.scores)}, got {len(self.scores)} arrays")
        kept = ~self.dropped_flags()
        for name, scores in zip(welcome.scores, self.scores, strict=True):
            wrong = int(np.count_nonzero(kept & ~np.isfinite(scores.as_numpy())))
            if wrong:
                raise ProtocolError(f"{wrong} scores {name} are not finite and not listed as dropped")
        self._check_embeddings(welcome, kept)
        self._check_payload(welcome, kept)

    def _check_embeddings(self, welcome: Welcome, kept: np.ndarray) -> None:
        if (self.errors is not None) != welcome.embeddings:
            wanted = "wanted" if welcome.embeddings else "not wanted"
            raise ProtocolError(f"embeddings are {wanted}, got {'none' if self.errors is None else 'some'}")
        for name, array in (("errors", self.errors), ("features", self.features)):
            if array is not None and (wrong := int((kept & ~np.isfinite(array.as_numpy()).all(axis=1)).sum())):
                raise ProtocolError(f"{wrong} rows of {name} are not finite and not listed as dropped")

    def _check_payload(self, welcome: Welcome, kept: np.ndarray) -> None:
        if (self.inputs is not None) != (welcome.transfer == "payload"):
            raise ProtocolError(f"transfer is {welcome.transfer}, got {'no' if self.inputs is None else 'a'} payload")
        if self.inputs is None:
            return
        if (self.rows is not None) != (welcome.best_k is not None):
            raise ProtocolError(f"best_k is {welcome.best_k}, got {'no' if self.rows is None else 'some'} rows")
        if self.rows is None or welcome.best_k is None:
            return
        rows = self.rows.as_numpy()
        if len(rows) > welcome.best_k or len(np.unique(rows)) != len(rows):
            raise ProtocolError(f"rows must be at most {welcome.best_k} different ones, got {len(rows)}")
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num or not kept[rows].all()):
            raise ProtocolError(f"rows must be in [0, {self.num}) and not dropped")


@dataclass(frozen=True, slots=True)
class Revoke:
    """Trainer to scorer: these leases are void."""

    leases: Leases


@dataclass(frozen=True, slots=True)
class Return:
    """Scorer to trainer: these leases will not be answered; they may be issued again at once."""

    leases: Leases
