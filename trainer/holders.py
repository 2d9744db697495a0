"""Who holds how many leases, and whose turn it is to get one: found without a look at all sessions."""

import bisect
import itertools
import threading
from typing import NamedTuple


class Place(NamedTuple):
    """Of a session in line; the smallest comes first."""

    num_held: int  # leases that are out
    last_lease: int  # number of the newest one, 0 before the first; they only grow
    number: int  # in the order of joining
    session: int


class Holders:
    """Whoever holds the fewest leases, of those whoever waits longest since its last one, of those whoever came first.

    Whoever holds as many as it may stands not in line. Thread-safe. The pool says who holds how many; sessions that it
    leases to without their having joined are left out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._places: dict[int, Place] = {}  # by session, of all that joined
        self._most: dict[int, int] = {}  # by session, the leases that it may hold
        self._away: set[int] = set()  # sessions that stepped out
        self._line: list[Place] = []  # ascending
        self.credits = 0  # leases that all of them together may hold; any thread may look

    def first(self) -> int | None:
        """The session whose turn it is, or None if nobody may have another one."""
        with self._lock:
            return self._line[0].session if self._line else None

    def join(self, session: int, most: int) -> None:
        """It may hold so many leases, at least 1."""
        with self._lock:
            self._places[session] = Place(0, 0, next(self._numbers), session)
            self._most[session] = most
            self.credits += most
            self._line_up(session)

    def allow(self, session: int, most: int) -> None:
        """It may hold so many from now on; what it holds beyond that stays. Nothing if it is not there, nor below."""
        with self._lock:
            if (before := self._most.get(session, most)) != most:
                self._fall_out(session)
                self._most[session] = most
                self.credits += most - before
                self._line_up(session)

    def leave(self, session: int) -> None:
        """It ended."""
        with self._lock:
            if session in self._places:
                self._fall_out(session)
                self.credits -= self._most.pop(session)
                del self._places[session]
                self._away.discard(session)

    def step_out(self, session: int) -> None:
        """It gets none until it steps in again; what it holds still counts."""
        with self._lock:
            if session in self._places:
                self._fall_out(session)
                self._away.add(session)

    def step_in(self, session: int) -> None:
        with self._lock:
            if session in self._away:
                self._away.remove(session)
                self._line_up(session)

    def got(self, session: int, lease: int) -> None:
        """A lease was issued to it."""
        self._move(session, 1, lease)

    def lost(self, session: int) -> None:
        """It no longer holds one of its leases: answered, taken back or skipped."""
        self._move(session, -1)

    def _move(self, session: int, more: int, lease: int | None = None) -> None:
        with self._lock:
            old = self._places.get(session)
            if old is None:
                return
            num_held, last_lease = old.num_held + more, old.last_lease if lease is None else lease
            assert num_held >= 0, f"session {session} lost a lease that it did not hold"
            self._fall_out(session)
            self._places[session] = Place(num_held, last_lease, old.number, session)
            self._line_up(session)

    def _is_in_line(self, session: int) -> bool:
        return session not in self._away and self._places[session].num_held < self._most[session]

    def _line_up(self, session: int) -> None:
        if self._is_in_line(session):
            bisect.insort(self._line, self._places[session])

    def _fall_out(self, session: int) -> None:
        if self._is_in_line(session):
            del self._line[bisect.bisect_left(self._line, self._places[session])]
