"""Audits: a small share of the chunks that were trained on is scored a second time, with newer weights.

    feeder: chosen ──► waiting for weights as new as its step ──► I/O thread: leased to a scorer ──► compared
                                                                       └ lost with it, or late: abandoned

The weights are those of a regular push: one for the audit would be used for other chunks too, and a run that is audited
would select by fresher scores than one that is not. So a staleness here is the difference between two pushed versions.
Scorers pay a forward pass, the trainer nothing. Nothing waits for an audit; one that does not come off is counted.
"""

import collections
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.order import keyed_uint64
from common.protocol import Lease, pack_mask
from common.selection.agreement import rank_correlation, selected_overlap
from trainer.agreement import Agreement
from trainer.chunks import ScoredChunk

MAX_WAITING = 64
FIRST_LEASE = 1 << 62  # numbers that no lease of the order reaches


@dataclass(frozen=True)
class Audit:
    """A chunk that was used.

    Attributes:
        chunk: with the scores by which it was used, without its samples.
        step: that trained on it.
        num_selected: how many of its candidates are selected, on average.
    """

    chunk: ScoredChunk
    step: int
    num_selected: int


@dataclass(frozen=True)
class _Held:
    """An audit out at a session since `issued_at`, by time.monotonic. Of the I/O thread alone."""

    session: int
    audit: Audit
    issued_at: float


class Audits:
    """Thread-safe: chosen by the feeder, leased and compared by the I/O thread.

    Args:
        fraction: of the chunks, in [0, 1].
        batch_size: b.
        generation: of the run, for leases.
        seed: keys which chunks.
        score_name, lowest_is_hard: the score that selects, and its hard end.
        selects_best: whether the hardest are selected, b of B; else there is no overlap of the selected to speak of.
        lease_s: deadline of a lease.
    """

    def __init__(
        self,
        fraction: float,
        *,
        batch_size: int,
        generation: int,
        seed: int,
        score_name: str,
        lowest_is_hard: bool,
        selects_best: bool,
        lease_s: float,
    ) -> None:
        self._threshold = fraction
        self._batch_size = batch_size
        self._generation = generation
        self._seed = seed
        self._score_name = score_name
        self._lowest_is_hard = lowest_is_hard
        self._selects_best = selects_best
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._waiting: collections.deque[Audit] = collections.deque()
        self._out: dict[int, _Held] = {}  # by lease
        self._results: list[Agreement] = []
        self._last_lease = FIRST_LEASE
        self._is_over = False
        self.counts = {"asked": 0, "answered": 0, "abandoned": 0, "candidates": 0}
        self.num_forward = 0  # forward passes of a candidate

    # -- feeder thread ------------------------------------------------------------------------------------------------

    def choose(self, chunks: Sequence[ScoredChunk], step: int) -> None:
        """Of the chunks whose scores select the samples of a step, note those that are to be scored again."""
        num_candidates = max(sum(len(chunk) for chunk in chunks), self._batch_size)
        for chunk in chunks:
            if not self._is_chosen(chunk):
                continue
            num_selected = max(1, round(len(chunk) * self._batch_size / num_candidates))
            with self._lock:
                if self._is_over:
                    return
                own = replace(chunk, payload=None, errors=None, features=None)  # they keep received frames alive
                self._waiting.append(Audit(own, step, num_selected))
                self.counts["asked"] += 1
                while len(self._waiting) > MAX_WAITING:
                    self._waiting.popleft()
                    self.counts["abandoned"] += 1

    def _is_chosen(self, chunk: ScoredChunk) -> bool:
        if self._threshold == 0 or self._score_name not in chunk.scores:
            return False
        draw = int(keyed_uint64(self._seed, "audit", chunk.start // len(chunk))) / 2.0**64
        return draw < self._threshold

    # -- training thread ----------------------------------------------------------------------------------------------

    @property
    def results(self) -> list[Agreement]:
        """All that was compared so far, in the order of the answers."""
        with self._lock:
            return list(self._results)

    # -- I/O thread ---------------------------------------------------------------------------------------------------

    def is_due(self, announced_step: int) -> bool:
        """Whether weights as new as the next audit's step are announced."""
        with self._lock:
            return bool(self._waiting) and announced_step >= self._waiting[0].step

    def next_lease(self, session: int, announced_step: int) -> Lease | None:
        """The next audit for a session that has none, if weights as new as its step are announced."""
        with self._lock:
            if not self._waiting or announced_step < self._waiting[0].step:
                return None
            if any(held.session == session for held in self._out.values()):
                return None
            audit = self._waiting.popleft()
            self._last_lease += 1
            self._out[self._last_lease] = _Held(session, audit, time.monotonic())
            chunk = audit.chunk
            return Lease(
                lease=self._last_lease,
                generation=self._generation,
                start=chunk.start,
                stop=chunk.stop,
                mask=b"" if chunk.wanted is None else pack_mask(chunk.wanted),
                oldest_step=audit.step,
                deadline_s=self._lease_s,
                is_audit=True,
            )

    def lose(self, session: int) -> None:
        """A session ended, is stuck or gave its audit back: what it held is not scored again."""
        self._abandon([lease for lease, held in self._out.items() if held.session == session])

    def expire(self, now: float) -> None:
        """Give up what was not answered by its deadline; `now` by time.monotonic."""
        self._abandon([lease for lease, held in self._out.items() if now - held.issued_at > self._lease_s])

    def _abandon(self, leases: Sequence[int]) -> None:
        with self._lock:
            for lease in leases:
                del self._out[lease]
            self.counts["abandoned"] += len(leases)

    def compare(
        self, lease: int, again: ScoredChunk, exact: Sequence[np.ndarray], score_names: Sequence[str], precision: str
    ) -> None:
        """The answer to a lease.

        Args:
            again: the chunk with its new scores.
            exact: (m,) float32 by score, of the m wanted candidates in float32; empty if they are that already.
        """
        with self._lock:
            held = self._out.get(lease)
        if held is None:
            return
        audit = held.audit
        old, new = audit.chunk.scores[self._score_name], again.scores[self._score_name]
        age = again.version.step - audit.chunk.version.step
        results = [self._agreement(audit, "staleness", precision, age, old, new)]
        num_wanted = len(again) if again.wanted is None else int(again.wanted.sum())
        if exact:
            wanted = slice(None) if again.wanted is None else torch.from_numpy(again.wanted)
            truth = torch.from_numpy(exact[list(score_names).index(self._score_name)].copy())
            results.append(self._agreement(audit, "precision", precision, 0, new[wanted], truth))
        with self._lock:
            if self._out.pop(lease, None) is None:
                return  # the audits ended meanwhile
            self._results += results
            self.counts["answered"] += 1
            self.counts["candidates"] += num_wanted
            self.num_forward += num_wanted * (2 if exact else 1)

    def _agreement(
        self, audit: Audit, kind: str, precision: str, staleness: int, first: Tensor, second: Tensor
    ) -> Agreement:
        num = min(audit.num_selected, len(first))
        return Agreement(
            step=audit.step,
            kind=kind,
            precision=precision,
            staleness=staleness,
            overlap=selected_overlap(first, second, num, lowest_is_hard=self._lowest_is_hard)
            if self._selects_best
            else math.nan,
            rank_correlation=rank_correlation(first, second),
            num_candidates=int((first.isfinite() & second.isfinite()).sum()),
            num_selected=num,
        )

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What waits or is out is abandoned after a restart."""
        with self._lock:
            abandoned = self.counts["abandoned"] + len(self._waiting) + len(self._out)
            return {
                "counts": {**self.counts, "abandoned": abandoned},
                "num_forward": self.num_forward,
                "results": [asdict(result) for result in self._results],
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            self.counts, self.num_forward = dict(state["counts"]), state["num_forward"]
            self._results = [Agreement(**result) for result in state["results"]]

    def end(self) -> None:
        """Nothing more is compared: what waits or is out is abandoned. Any thread; for good, and safe to call twice."""
        with self._lock:
            self._is_over = True
            self.counts["abandoned"] += len(self._waiting) + len(self._out)
            self._waiting.clear()
            self._out.clear()
