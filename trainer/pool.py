"""The pool of scored chunks between the I/O thread, which fills it, and the feeder thread, which empties it.

One lock guards the pool and the lease book; it is held for microseconds. Staleness is judged at the step that uses a
chunk, never at its arrival.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from common.protocol import Version
from trainer.chunks import ScoredChunk
from trainer.holders import Holders
from trainer.leases import LeaseBook, Outstanding


class Pool:
    """Thread-safe: leases are issued and results accepted by the I/O thread, chunks are taken by the feeder.

    Args:
        book: the lease book, owned by the pool from now on.
        min_candidates: fewest candidates that make a step (b).
        chunks_per_step: exact number of chunks a step takes, or the most of them when `exact` is false.
        exact: take exactly `chunks_per_step` chunks, or all that are ready.

    Attributes:
        holders: who holds how many leases, and whose turn it is to get one.
    """

    def __init__(self, book: LeaseBook, *, min_candidates: int, chunks_per_step: int, exact: bool) -> None:
        self._book = book
        self._min_chunks = chunks_per_step if exact else -(-min_candidates // book.chunk_size)
        self._max_chunks = chunks_per_step
        self._changed = threading.Condition()
        self._chunks: dict[int, ScoredChunk] = {}
        self._closed = False
        self.holders = Holders()
        self._was_refused = True  # the last `issue` gave no lease: room is waited for
        self.next_step = 0
        self.announced: Version | None = None
        self.changes = 0  # grows with whatever ends a `wait`
        self.num_arrived = 0  # chunks ever accepted
        self.candidates_arrived = 0
        self.on_room: Callable[[], None] = lambda: None  # called without the lock when leases may be issuable
        self.on_drop: Callable[[ScoredChunk], None] = lambda chunk: None  # likewise, for each chunk that is too stale

    # -- I/O thread ---------------------------------------------------------------------------------------------------

    def issue(self, session: int, credits: int) -> Outstanding | None:
        """See `LeaseBook.issue`; None also before weights were announced."""
        with self._changed:
            while self.announced is not None and not self._closed:
                held = self._book.issue(
                    session,
                    next_step=self.next_step,
                    announced_step=self.announced.step,
                    credits=credits,
                    now=time.monotonic(),
                )
                self._was_refused = held is None
                if held is None:
                    return None
                if len(held):
                    self.holders.got(session, held.lease)
                    return held
                # Every score of this chunk is remembered: no scorer need see it.
                assert held.wanted is not None, "an empty chunk"
                self._book.accept(session, held.lease)
                self._add(ScoredChunk(held.start, held.stop, self.announced, {}, held.wanted))
            self._was_refused = True
            return None

    @property
    def most_ahead(self) -> int:
        """See `LeaseBook.most_ahead`; any thread."""
        return self._book.most_ahead

    def lease(self, session: int, lease: int) -> Outstanding | None:
        """The outstanding lease of a session, if it is current."""
        with self._changed:
            held = self._book.outstanding.get(lease)
            return held if held is not None and held.session == session else None

    def put(self, session: int, lease: int, chunk: ScoredChunk) -> bool:
        """Add a chunk if its lease is the current one; otherwise it is refused and counted."""
        with self._changed:
            if self._closed or self._book.accept(session, lease) is None:
                return False
            self.holders.lost(session)
            self._add(chunk)
            return True

    def _add(self, chunk: ScoredChunk) -> None:
        self._chunks[chunk.start] = chunk
        self.num_arrived += 1
        self.candidates_arrived += len(chunk)
        self._notify()

    def refuse(self, reason: str) -> None:
        with self._changed:
            self._book.refused[reason] += 1

    def expire(self, leases: list[int]) -> None:
        with self._changed:
            for held in self._book.expire(leases):
                self.holders.lost(held.session)

    def held_by(self, session: int) -> list[int]:
        with self._changed:
            return self._book.held_by(session)

    def oldest_issues(self) -> dict[int, float]:
        """When the oldest lease that a session holds was issued (monotonic seconds), by session; in one pass."""
        with self._changed:  # leases are kept in the order of issue
            return {held.session: held.issued_at for held in reversed(self._book.outstanding.values())}

    def announce(self, version: Version) -> None:
        with self._changed:
            self.announced = version

    # -- feeder and training thread -----------------------------------------------------------------------------------

    def advance(self, next_step: int) -> None:
        """The feeder now gathers for `next_step`; leases may look that much further ahead."""
        with self._changed:
            if self.next_step == next_step:
                return  # `take` was there before: no need to wake the I/O thread
            self.next_step = next_step
        self._tell([], has_room=True)

    def take(self, step: int) -> list[ScoredChunk]:
        """The chunks for this step, in the order of their positions, or [] if there are too few fresh enough ones."""
        with self._changed:
            dropped = self._drop_stale(step)
            if len(self._chunks) < self._min_chunks:
                taken = []
            else:
                starts = sorted(self._chunks)[: self._max_chunks]
                taken = [self._chunks.pop(start) for start in starts]
                for start in starts:
                    self._book.consume(start)
                self.next_step = step + 1  # before a lease is issued: the next chunk is for the next step
        self._tell(dropped, has_room=bool(taken or dropped))
        return taken

    def take_first(self, step: int | None = None) -> ScoredChunk | None:
        """The first chunk there is, for a step that takes them one by one; None if there is none.

        The next one then counts as for the next step, until `advance` says that this step needs more: scores of a
        chunk that is leased too early would be too stale where `max_staleness` is 0.

        Args:
            step: scores must not be too stale for it; None takes them however old they are.
        """
        with self._changed:
            dropped = [] if step is None else self._drop_stale(step)
            chunk = None
            if self._chunks:
                start = min(self._chunks)
                self._book.consume(start)
                chunk = self._chunks.pop(start)
                if step is not None:
                    self.next_step = step + 1
        self._tell(dropped, has_room=chunk is not None or bool(dropped))
        return chunk

    def _drop_stale(self, step: int) -> list[ScoredChunk]:
        oldest_step = step - self._book.pace.max_staleness
        stale = [start for start, chunk in self._chunks.items() if chunk.version.step < oldest_step]
        for start in stale:
            self._book.drop(start)
        return [self._chunks.pop(start) for start in stale]

    def _tell(self, dropped: list[ScoredChunk], *, has_room: bool) -> None:
        for chunk in dropped:
            self.on_drop(chunk)
        if has_room and self._was_refused:  # else scorers hold all that they may, and the next answer brings a lease
            self.on_room()

    def wait(self, timeout_s: float, seen: int | None = None) -> None:
        """Sleep until something arrives, `wake` is called or the time is over.

        Args:
            seen: `changes` as it was before the caller looked; what happened since then ends the wait at once.
        """
        with self._changed:
            if not self._closed and seen in (None, self.changes):
                self._changed.wait(timeout_s)

    def wake(self) -> None:
        with self._changed:
            self._notify()

    def _notify(self) -> None:
        self.changes += 1
        self._changed.notify_all()

    def finish(self) -> dict[int, list[int]]:
        """No further step trains on scored candidates: the rest is skipped and nothing more is accepted.

        Returns:
            The leases still out, by session.
        """
        with self._changed:
            out: dict[int, list[int]] = {}
            for held in self._book.outstanding.values():
                out.setdefault(held.session, []).append(held.lease)
                self.holders.lost(held.session)
            if not self._closed:
                self._closed = True
                self._chunks.clear()
                self._book.skip_all()
            self._notify()
            return out

    # -- state --------------------------------------------------------------------------------------------------------

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing is leased, accepted or taken meanwhile: what is saved of pool and ledger is of one moment."""
        with self._changed:
            yield

    def state_dict(self) -> dict[str, Any]:
        """Without the scored chunks: the book has them leased anew."""
        with self._changed:
            return {"book": self._book.state_dict(), "next_step": self.next_step, "closed": self._closed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """For a pool that has issued nothing yet."""
        with self._changed:
            self._book.load_state_dict(state["book"])
            self.next_step, self._closed = state["next_step"], state["closed"]

    # -- figures ------------------------------------------------------------------------------------------------------

    def account(self) -> dict[str, int]:
        """The lease account; `outstanding` counts what is out or ready, so that the sum holds."""
        with self._changed:
            return {
                **asdict(self._book.account),
                "outstanding": len(self._book.outstanding) + len(self._book.ready),
            }

    def refused(self) -> dict[str, int]:
        with self._changed:
            return dict(self._book.refused)

    @property
    def num_ready(self) -> int:
        return len(self._chunks)
