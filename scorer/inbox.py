"""What a rank asked of this scorer within a session: leases to score, and what a predictor of losses learns from."""

import collections
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from common.errors import ProtocolError
from common.protocol import Feedback, Lease, PredictorState, Revoke, Version, Welcome
from common.protocol.limits import MAX_LEASES

MAX_FEEDBACK = 64  # messages that wait to be learned from; the newest ones, where training is faster than learning
MAX_HELD_BYTES = 256 << 20  # of past losses, in leases and in feedback: of all ranks, each has its part


class Work(NamedTuple):
    """Something to do in a session. `version` was resident when it was taken; for a lease it is recent enough.

    Attributes:
        along: leases that are next after a lease, of the same session, to be scored together with it.
    """

    order: Lease | Feedback | PredictorState
    welcome: Welcome
    version: Version | None
    along: tuple[Lease, ...] = ()


class Held(NamedTuple):
    """A lease, and by `time.monotonic()` when its answer is due."""

    lease: Lease
    due_at: float


class Told(NamedTuple):
    """Feedback, and when it came."""

    feedback: Feedback
    at: float


@dataclass
class Inbox:
    """Shared by two threads; the caller serialises all calls. Without a welcome nothing is taken in.

    Attributes:
        leases: in order of arrival; includes the one that is being scored.
        events: counters of what happened, by name.
    """

    welcome: Welcome | None = None
    leases: dict[int, Held] = field(default_factory=dict)
    _state: PredictorState | None = None
    _feedback: collections.deque[Told] = field(default_factory=lambda: collections.deque(maxlen=MAX_FEEDBACK))
    events: collections.Counter[str] = field(default_factory=collections.Counter)

    def begin(self, welcome: Welcome) -> None:
        """A new session: nothing of an earlier one holds."""
        self.forget()
        self.welcome = welcome

    def forget(self) -> None:
        self.welcome = self._state = None
        self.leases.clear()
        self._feedback.clear()

    # -- what arrives -------------------------------------------------------------------------------------------------

    def add_lease(self, lease: Lease) -> None:
        """Raises ProtocolError for one of more positions than agreed, or more leases than anybody needs."""
        if self.welcome is None or lease.generation != self.welcome.generation:
            return
        if lease.stop - lease.start > self.welcome.chunk_size:
            raise ProtocolError(
                f"lease {lease.lease} is of {lease.stop - lease.start} positions, a chunk has {self.welcome.chunk_size}"
            )
        held_bytes = sum(_bytes_of(held.lease) for held in self.leases.values()) + _bytes_of(lease)
        if len(self.leases) >= MAX_LEASES or held_bytes > self._most_bytes(self.welcome):
            raise ProtocolError(
                f"{len(self.leases) + 1} leases of {held_bytes} bytes at a time; a scorer holds at most "
                f"{MAX_LEASES}, of {self._most_bytes(self.welcome)} bytes"
            )
        self.leases[lease.lease] = Held(lease, time.monotonic() + lease.deadline_s)

    def revoke(self, revoke: Revoke) -> None:
        for lease in revoke.leases:
            self.events["leases revoked"] += self.leases.pop(lease, None) is not None

    def add_feedback(self, feedback: Feedback) -> None:
        if self.welcome is None:
            return
        self.events["feedback dropped"] += len(self._feedback) == MAX_FEEDBACK
        self._feedback.append(Told(feedback, time.monotonic()))
        most_bytes = self._most_bytes(self.welcome)
        while len(self._feedback) > 1 and sum(_bytes_of(told.feedback) for told in self._feedback) > most_bytes:
            self._feedback.popleft()
            self.events["feedback dropped"] += 1

    def add_state(self, state: PredictorState) -> None:
        """Parameters to take before anything else; the latest count."""
        if self.welcome is not None:
            self._state = state

    def _most_bytes(self, welcome: Welcome) -> int:
        return MAX_HELD_BYTES // welcome.num_ranks

    # -- what is to be done -------------------------------------------------------------------------------------------

    def take_state(self) -> PredictorState | None:
        state, self._state = self._state, None
        return state

    def servable(self, resident: Version) -> Iterator[Held]:
        """The leases that this version is recent enough for; they stay here until they are answered."""
        return (held for held in self.leases.values() if held.lease.oldest_step <= resident.step)

    @property
    def fed_at(self) -> float | None:
        """Since when feedback has waited; None if there is none."""
        return self._feedback[0].at if self._feedback else None

    def take_feedback(self) -> Feedback:
        return self._feedback.popleft().feedback


def _bytes_of(message: Lease | Feedback) -> int:
    """Of the past losses that it brings."""
    return 0 if message.histories is None else message.histories.nbytes
