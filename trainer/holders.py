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

    Thread-safe. The pool says who holds how many; sessions that it leases to without their having joined are left out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._places: dict[int, Place] = {}  # by session, of all that joined
        self._away: set[int] = set()  # of these, the ones that stand not in line
        self._line: list[Place] = []  # ascending

    def first(self, most: int) -> int | None:
        """The session whose turn it is, or None if nobody in line holds fewer leases than `most`."""
        with self._lock:
            return self._line[0].session if self._line and self._line[0].num_held < most else None

    def join(self, session: int) -> None:
        with self._lock:
            self._places[session] = place = Place(0, 0, next(self._numbers), session)
            bisect.insort(self._line, place)

    def leave(self, session: int) -> None:
        """It ended. Nothing happens if it is not there, nor below."""
        with self._lock:
            place = self._places.pop(session, None)
            if place is not None and session not in self._away:
                self._take_out(place)
            self._away.discard(session)

    def step_out(self, session: int) -> None:
        """It gets none until it steps in again; what it holds still counts."""
        with self._lock:
            if session in self._places and session not in self._away:
                self._away.add(session)
                self._take_out(self._places[session])

    def step_in(self, session: int) -> None:
        with self._lock:
            if session in self._away:
                self._away.remove(session)
                bisect.insort(self._line, self._places[session])

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
            self._places[session] = new = Place(num_held, last_lease, old.number, session)
            if session not in self._away:
                self._take_out(old)
                bisect.insort(self._line, new)

    def _take_out(self, place: Place) -> None:
        del self._line[bisect.bisect_left(self._line, place)]
