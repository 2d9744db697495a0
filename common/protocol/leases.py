"""Messages about leases and their answers.

`decode` checks each field and that the fields of one message agree with each other. Whether a lease is known or a
version current is for whoever keeps the account; `Candidates.check` is the part of it that needs no state.
"""

from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from msgspec.structs import force_setattr

from common.errors import ProtocolError
from common.protocol.arrays import Array, Buffer, Inline, check_array, check_histories
from common.protocol.limits import Limits
from common.protocol.placed import Placed
from common.protocol.sessions import SCORES, Welcome
from common.protocol.values import (
    MAX_FLOAT,
    Leases,
    Natural,
    Real,
    Seconds,
    Version,
    check_distinct,
    check_mask,
    check_tensor,
    unpack_mask,
)
from common.protocol.wire import Wire

if TYPE_CHECKING:
    Scores = tuple[Array, ...]
else:
    # The header holds no more than the bytes: these are float32, one for each of `num`.
    Scores = Annotated[tuple[Inline, ...], Meta(max_length=len(SCORES))]
SOME = range(1, 1 << 62)


class Lease(Wire, frozen=True):
    """Trainer to scorer: score the positions [start, stop) of the order, or those of them whose bit is 1 in `mask`.

    An empty mask wants all of them. Weights older than (generation, oldest_step) are not good enough; the answer is
    due `deadline_s` seconds after arrival. `histories` (num, H) float32, for scorers that predict losses: past losses
    of each wanted position, the most recent last, NaN for none. `is_audit`: scored before, and now again with newer
    weights; a scorer of low precision then sends float32 scores of the same weights beside its own.
    """

    lease: Natural
    generation: Natural
    start: Natural
    stop: Natural
    mask: bytes
    oldest_step: Natural
    deadline_s: Seconds
    histories: Array | None = None
    is_audit: bool = False

    def check_fields(self, limits: Limits) -> None:
        if not 0 < self.stop - self.start <= limits.max_chunk:
            raise ProtocolError(f"[{self.start}, {self.stop}) must hold 1 to {limits.max_chunk} positions")
        if self.mask:
            check_mask(self.mask, self.stop - self.start)
            if not self.num:
                raise ProtocolError(f"a mask that wants none of [{self.start}, {self.stop})")
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

    def run(self) -> range | np.ndarray:
        """The same, as a range where none is left out."""
        return self.positions() if self.mask else range(self.start, self.stop)


class Candidates(Wire, frozen=True):
    """Scorer to trainer: the scores of one lease. n = `num`, the positions that the lease wanted, in its order.

    `version` was resident when the forward pass started. `dropped` is a bit mask of the candidates without a finite
    score (empty: none); the values in their places mean nothing. `loss_mean` and `accuracy` (0 to 1) are over the
    others, None where unknown; so is `tau`, the variance reduction of their gradient-norm bounds (>= 0; 1803.00942).
    `read_s` and `score_s` are what fetching and the forward pass took.
    As payload: `inputs` (m, ...) and `targets` (m, ...), m = n, or `rows` (m,) int32 says which candidates they are.
    `placed`, in place of inputs: where they are in memory that both sides have (common.payload_room).
    As embeddings: `errors` (n, C), softmax - onehot, and `features` (n, D), inputs of the head, both float16.
    As the answer to an audit by a scorer of low precision: `exact_scores`, the scores of a float32 forward pass.
    """

    lease: Natural
    version: Version
    num: Natural
    dropped: bytes
    scores: Scores
    loss_mean: Real | None
    accuracy: Annotated[float, Meta(ge=0.0, le=1.0)] | None
    read_s: Seconds
    score_s: Seconds
    rows: Array | None = None
    inputs: Array | None = None
    targets: Array | None = None
    tau: Annotated[float, Meta(ge=0.0, le=MAX_FLOAT)] | None = None
    errors: Array | None = None
    features: Array | None = None
    exact_scores: Scores = ()
    placed: Placed | None = None

    def outgoing(self, frames: list[Buffer]) -> dict[str, object]:
        changes: dict[str, object] = {
            name: tuple([one.outgoing(name, frames).buffer for one in getattr(self, name)])
            for name in ("scores", "exact_scores")
        }
        return changes | super().outgoing(frames)

    def incoming(self, frames: list[Buffer]) -> None:
        for name in ("scores", "exact_scores"):
            arrays = tuple([Array("float32", (self.num,), buffer) for buffer in getattr(self, name)])
            for array in arrays:
                array.incoming(name, frames)
            force_setattr(self, name, arrays)
        super().incoming(frames)

    def check_fields(self, limits: Limits) -> None:
        if self.num > limits.max_chunk:
            raise ProtocolError(f"num must be at most {limits.max_chunk}, got {self.num}")
        if self.dropped:
            check_mask(self.dropped, self.num)
        for scores in (*self.scores, *self.exact_scores):
            check_array("scores", scores, "float32", self.num)
        self._check_payload_fields()
        if (self.errors is None) != (self.features is None):
            raise ProtocolError("errors and features come together or not at all")
        check_array("errors", self.errors, "float16", self.num, SOME)
        check_array("features", self.features, "float16", self.num, SOME)

    def _check_payload_fields(self) -> None:
        inputs = self.inputs if self.placed is None else self.placed
        if (inputs is None) != (self.targets is None) or (inputs is None and self.rows is not None):
            raise ProtocolError("inputs and targets come together or not at all, and rows only with them")
        if self.placed is not None and self.inputs is not None:
            raise ProtocolError("inputs are in the message or placed, not both")
        if self.placed is not None:
            check_tensor("placed", self.placed.dtype, self.placed.shape)
        if inputs is None or self.targets is None:
            return
        check_array("rows", self.rows, "int32", range(self.num + 1))
        expected, shapes = (self.num,) if self.rows is None else self.rows.shape, (inputs.shape, self.targets.shape)
        if any(shape[:1] != expected for shape in shapes):
            raise ProtocolError(f"a payload of {expected[0]} samples, got shapes {shapes[0]} and {shapes[1]}")

    def dropped_flags(self) -> np.ndarray:
        """(num,) bool: candidates without a finite score."""
        return unpack_mask(self.dropped, self.num) if self.dropped else np.zeros(self.num, dtype=np.bool_)

    def finite_scores(self) -> tuple[np.ndarray, ...]:
        """(num,) float32 for each score, NaN where dropped. Shares the frames' memory where nothing is dropped."""
        return self._without_dropped(self.scores)

    def finite_exact_scores(self) -> tuple[np.ndarray, ...]:
        """The same of `exact_scores`; empty where there are none."""
        return self._without_dropped(self.exact_scores)

    def _without_dropped(self, scores: tuple[Array, ...]) -> tuple[np.ndarray, ...]:
        arrays = tuple(each.as_numpy() for each in scores)
        if not self.dropped:
            return arrays
        dropped = self.dropped_flags()
        return tuple(np.where(dropped, np.float32(np.nan), array) for array in arrays)

    def check(self, lease: Lease, welcome: Welcome) -> None:
        """What this must be as the answer to that lease in that session, apart from its age.

        Raises:
            ProtocolError: another lease or generation; another number of candidates or scores than asked for; scores
                or embeddings that are neither finite nor listed as dropped; embeddings or a payload other than agreed,
                rows out of range, repeated or dropped; exact scores of what is no audit.
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
        if len(self.exact_scores) not in ((0, len(welcome.scores)) if lease.is_audit else (0,)):
            raise ProtocolError(f"exact scores are for audits, one for each score; got {len(self.exact_scores)}")
        kept = ~self.dropped_flags()
        for name, scores in zip(welcome.scores * 2, (*self.scores, *self.exact_scores), strict=False):
            wrong = int(np.count_nonzero(kept & ~np.isfinite(scores.as_numpy())))
            if wrong:
                raise ProtocolError(f"{wrong} scores {name} are not finite and not listed as dropped")
        self._check_embeddings(welcome.embeddings and not lease.is_audit, kept)
        self._check_payload(welcome.transfer == "payload" and not lease.is_audit, welcome.best_k, kept)

    def _check_embeddings(self, are_wanted: bool, kept: np.ndarray) -> None:
        if (self.errors is not None) != are_wanted:
            wanted = "wanted" if are_wanted else "not wanted"
            raise ProtocolError(f"embeddings are {wanted}, got {'none' if self.errors is None else 'some'}")
        for name, array in (("errors", self.errors), ("features", self.features)):
            if array is not None and (wrong := int((kept & ~np.isfinite(array.as_numpy()).all(axis=1)).sum())):
                raise ProtocolError(f"{wrong} rows of {name} are not finite and not listed as dropped")

    def _check_payload(self, is_wanted: bool, best_k: int | None, kept: np.ndarray) -> None:
        if (self.inputs is not None) != is_wanted:
            wanted = "wanted" if is_wanted else "not wanted"
            raise ProtocolError(f"a payload is {wanted}, got {'none' if self.inputs is None else 'one'}")
        if self.inputs is None:
            return
        if (self.rows is not None) != (best_k is not None):
            raise ProtocolError(f"best_k is {best_k}, got {'no' if self.rows is None else 'some'} rows")
        if self.rows is None or best_k is None:
            return
        rows = self.rows.as_numpy()
        if len(rows) > best_k or len(np.unique(rows)) != len(rows):
            raise ProtocolError(f"rows must be at most {best_k} different ones, got {len(rows)}")
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num or not kept[rows].all()):
            raise ProtocolError(f"rows must be in [0, {self.num}) and not dropped")


class Revoke(Wire, frozen=True):
    """Trainer to scorer: these leases are void."""

    leases: Leases

    def check_fields(self, limits: Limits) -> None:
        check_distinct("leases", self.leases)


class Return(Wire, frozen=True):
    """Scorer to trainer: these leases will not be answered; they may be issued again at once."""

    leases: Leases

    def check_fields(self, limits: Limits) -> None:
        check_distinct("leases", self.leases)
