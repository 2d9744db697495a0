"""Leases: which chunk is scored by whom, in which order, and what became of it.

The trainer owns the order. A chunk is a run of positions; a lease is the right and the duty to score one chunk, and it
is one credit. A lost lease puts its chunk first in line again, so scorers may die at any time; a result counts only
while its lease is the current one for its chunk. Outstanding leases are counted absolutely.

    next position ──► issue ──► outstanding ──► accept ──► ready (the pool) ──► consumed | dropped | skipped
                        ▲            │ expired (silent, stuck, returned)
                        └── reissue ◄┘

Not thread-safe: `trainer.pool.Pool` holds the lock.
"""

import bisect
import collections
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from common.protocol import pack_mask, unpack_mask

Wanted = np.ndarray | None  # (n,) bool: positions of a chunk that want a score; None for all


READY_STEPS = 2  # steps' worth of chunks that may be ready
BUSY_STEPS = 4  # steps' worth of chunks that keep any scorers busy


@dataclass(frozen=True)
class Pace:
    """What bounds the leases ahead of the trainer, all in steps or chunks.

    Attributes:
        chunks_per_step: the most chunks that one step consumes.
        max_staleness: hard bound on step - version.step at use.
        push_every: steps between weight pushes.
        first_step: first step that trains on scored candidates (the end of the warm-up).
        stop_step: first step that no longer does (the start of the annealing).
        sweep: (positions that may be scored at once, positions more for each step): for a method that draws from all
            samples and has them scored anew now and then. None: as many as are consumed.
    """

    chunks_per_step: int
    max_staleness: int
    push_every: int
    first_step: int
    stop_step: int
    sweep: tuple[int, float] | None = None

    @property
    def warmup_lead(self) -> int:
        """How many steps before the end of the warm-up scoring begins: enough for the pool to be full, not staler."""
        return min(self.max_staleness, 2 * self.push_every)

    def position_limit(self, next_step: int) -> float:
        """The first position that must not be scored yet."""
        if self.sweep is None:
            return math.inf
        return self.sweep[0] + self.sweep[1] * max(0, next_step - self.first_step)


@dataclass(frozen=True)
class Outstanding:
    """A lease that a session holds."""

    lease: int
    session: int
    start: int
    stop: int
    oldest_step: int
    issued_at: float
    wanted: Wanted = None

    def __len__(self) -> int:
        """How many positions want a score."""
        return self.stop - self.start if self.wanted is None else int(self.wanted.sum())


@dataclass
class Account:
    """Every lease ends in exactly one of these: leased = consumed + expired + dropped + skipped + outstanding.

    `outstanding` holds the leases out at scorers and the scored chunks that wait in the pool.
    """

    leased: int = 0
    consumed: int = 0
    expired: int = 0
    dropped: int = 0
    skipped: int = 0

    def outstanding(self) -> int:
        return self.leased - self.consumed - self.expired - self.dropped - self.skipped


@dataclass
class LeaseBook:
    """Issues leases in the order of positions and keeps the account.

    Args:
        chunk_size: positions per chunk.
        pace: bounds, see there.
        plan_visit: told [start, stop) once, when a chunk is first leased, it says which positions want a score.
    """

    chunk_size: int
    pace: Pace
    plan_visit: Callable[[int, int], Wanted] = lambda start, stop: None
    next_position: int = 0
    account: Account = field(default_factory=Account)
    outstanding: dict[int, Outstanding] = field(default_factory=dict)
    ready: list[int] = field(default_factory=list)  # starts of scored, unconsumed chunks, ascending
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    _reissue: list[int] = field(default_factory=list)  # starts of chunks whose lease was lost, ascending
    _wanted: dict[int, Wanted] = field(
        default_factory=dict
    )  # by start, of chunks leased and neither consumed nor dropped
    _last_lease: int = 0

    def issue(
        self, session: int, *, next_step: int, announced_step: int, credits: int, now: float
    ) -> Outstanding | None:
        """Lease the next chunk to a session, or None if there is nothing that it could usefully score now.

        A chunk with r unconsumed chunks before it cannot be used before step `next_step + r // chunks_per_step`;
        weights older than that step's `max_staleness` would score it in vain. So such a lease waits here until its
        weights are announced: a scorer only ever holds leases that it can serve, and a trainer that waits for chunks
        cannot deadlock with a scorer that waits for weights.

        Args:
            next_step: the step whose candidates are being gathered.
            announced_step: step of the newest announced weights.
            credits: leases that all sessions together may hold.
        """
        if self._reissue:
            start = self._reissue[0]
            ahead = bisect.bisect_left(self.ready, start)
            ahead += sum(held.start < start for held in self.outstanding.values())
        else:
            start, ahead = self.next_position, len(self.ready) + len(self.outstanding)
        use_step = max(next_step, self.pace.first_step) + ahead // self.pace.chunks_per_step
        oldest_step = max(0, use_step - self.pace.max_staleness)
        in_warmup = next_step < self.pace.first_step
        if (
            use_step >= self.pace.stop_step
            or announced_step < oldest_step
            or (in_warmup and announced_step < use_step - self.pace.warmup_lead - self.pace.push_every)
            or len(self.ready) + len(self.outstanding) >= self.most_unconsumed(credits)
            or start >= self.pace.position_limit(next_step)
        ):
            return None
        if self._reissue:
            self._reissue.pop(0)
        else:
            self.next_position += self.chunk_size
            self._wanted[start] = self.plan_visit(start, self.next_position)
        self._last_lease += 1
        held = Outstanding(
            self._last_lease, session, start, start + self.chunk_size, oldest_step, now, self._wanted[start]
        )
        self.outstanding[held.lease] = held
        self.account.leased += 1
        return held

    def most_unconsumed(self, credits: int) -> int:
        """Chunks leased or ready at once: two steps' worth, and what keeps the scorers busy, at most four steps'."""
        per_step = self.pace.chunks_per_step
        return READY_STEPS * per_step + min(credits, BUSY_STEPS * per_step)

    @property
    def most_ahead(self) -> int:
        """Leases beyond which scorers would take them from each other, or hold what is too stale when it is used.

        A step's worth of all that may be unconsumed at once is left to whoever comes later.
        """
        return self.pace.chunks_per_step * min(READY_STEPS + BUSY_STEPS - 1, self.pace.max_staleness // 2)

    def accept(self, session: int, lease: int) -> Outstanding | None:
        """The lease that a result belongs to, now ready; None (counted) if it is late, foreign or a duplicate."""
        held = self.outstanding.get(lease)
        if held is None or held.session != session:
            self.refused["no such lease"] += 1
            return None
        del self.outstanding[lease]
        bisect.insort(self.ready, held.start)
        return held

    def expire(self, leases: list[int]) -> list[Outstanding]:
        """Take leases back, those of them that are out: their chunks are issued again, first."""
        expired = [held for lease in leases if (held := self.outstanding.pop(lease, None)) is not None]
        for held in expired:
            self.account.expired += 1
            bisect.insort(self._reissue, held.start)
        return expired

    def held_by(self, session: int) -> list[int]:
        """Leases that a session holds, oldest first."""
        return [held.lease for held in self.outstanding.values() if held.session == session]

    def consume(self, start: int) -> None:
        self._leave(start)
        self.account.consumed += 1

    def drop(self, start: int) -> None:
        """A scored chunk became too stale to be used."""
        self._leave(start)
        self.account.dropped += 1

    def _leave(self, start: int) -> None:
        self.ready.remove(start)
        del self._wanted[start]

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain values. After a restart what is out or ready is due again, before all others."""
        due = sorted([*self._reissue, *self.ready, *(held.start for held in self.outstanding.values())])
        account = asdict(self.account)
        account["expired"] += self.account.outstanding()
        return {
            "next_position": self.next_position,
            "due": due,
            "wanted": {start: pack_mask(wanted) for start in due if (wanted := self._wanted[start]) is not None},
            "account": account,
            "refused": dict(self.refused),
            "last_lease": self._last_lease,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """For a book that has issued nothing yet."""
        self.next_position = state["next_position"]
        self._reissue = list(state["due"])
        wanted = {start: unpack_mask(mask, self.chunk_size) for start, mask in state["wanted"].items()}
        self._wanted = {start: wanted.get(start) for start in self._reissue}
        self.account = Account(**state["account"])
        self.refused = collections.Counter(state["refused"])
        self._last_lease = state["last_lease"]

    # -- the end ------------------------------------------------------------------------------------------------------

    def skip_all(self) -> None:
        """No further step trains on scored candidates: what is out or ready is skipped."""
        self.account.skipped += len(self.outstanding) + len(self.ready)
        self.outstanding.clear()
        self.ready.clear()
        self._reissue.clear()
        self._wanted.clear()
