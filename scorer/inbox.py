"""What a trainer asked of this scorer within a session: leases to score, and what a predictor of losses learns from."""

import collections
from dataclasses import dataclass, field
from typing import NamedTuple

from common.errors import ProtocolError
from common.protocol import Feedback, Lease, PredictorState, Revoke, Version, Welcome
from common.protocol.limits import MAX_LEASES

MAX_FEEDBACK = 64  # messages that wait to be learned from; the newest ones, where training is faster than learning
MAX_HELD_BYTES = 256 << 20  # of past losses, in leases and in feedback


class Work(NamedTuple):
    """Something to do in a session. `version` was resident when it was taken; for a lease it is recent enough."""

    order: Lease | Feedback | PredictorState
    welcome: Welcome
    version: Version | None


@dataclass
class Inbox:
    """Shared by two threads; the caller serialises all calls. Without a welcome nothing is taken in.

    Attributes:
        leases: in order of arrival; includes the one that is being scored.
        resident: the version that leases are measured by.
        events: counters of what happened, by name.
    """

    welcome: Welcome | None = None
    leases: dict[int, Lease] = field(default_factory=dict)
    resident: Version | None = None
    _state: PredictorState | None = None
    _feedback: collections.deque[Feedback] = field(default_factory=lambda: collections.deque(maxlen=MAX_FEEDBACK))
    _has_learned: bool = False  # the last work was feedback
    events: collections.Counter[str] = field(default_factory=collections.Counter)

    def begin(self, welcome: Welcome) -> None:
        """A new session: nothing of an earlier one holds, for the same version of another trainer is other weights."""
        self.forget()
        self.welcome = welcome

    def forget(self) -> None:
        self.welcome = self.resident = self._state = None
        self.leases.clear()
        self._feedback.clear()

    def add_lease(self, lease: Lease) -> None:
        """Raises ProtocolError for one of more positions than agreed, or more leases than anybody needs."""
        if self.welcome is None or lease.generation != self.welcome.generation:
            return
        if lease.stop - lease.start > self.welcome.chunk_size:
            raise ProtocolError(
                f"lease {lease.lease} is of {lease.stop - lease.start} positions, a chunk has {self.welcome.chunk_size}"
            )
        held_bytes = sum(_bytes_of(held) for held in self.leases.values()) + _bytes_of(lease)
        if len(self.leases) >= MAX_LEASES or held_bytes > MAX_HELD_BYTES:
            raise ProtocolError(
                f"{len(self.leases) + 1} leases of {held_bytes} bytes at a time; a scorer holds at most "
                f"{MAX_LEASES}, of {MAX_HELD_BYTES} bytes"
            )
        self.leases[lease.lease] = lease

    def revoke(self, revoke: Revoke) -> None:
        for lease in revoke.leases:
            self.events["leases revoked"] += self.leases.pop(lease, None) is not None

    def add_feedback(self, feedback: Feedback) -> None:
        if self.welcome is not None:
            self.events["feedback dropped"] += len(self._feedback) == MAX_FEEDBACK
            self._feedback.append(feedback)
            while len(self._feedback) > 1 and sum(map(_bytes_of, self._feedback)) > MAX_HELD_BYTES:
                self._feedback.popleft()
                self.events["feedback dropped"] += 1

    def add_state(self, state: PredictorState) -> None:
        """Parameters to take before anything else; the latest count."""
        if self.welcome is not None:
            self._state = state

    def next_work(self) -> Work | None:
        """Parameters first, then feedback and leases in turns while there are both, so that neither starves."""
        if self.welcome is None:
            return None
        order = self._next_order()
        return None if order is None else Work(order, self.welcome, self.resident)

    def _next_order(self) -> Lease | Feedback | PredictorState | None:
        if self._state is not None:
            state, self._state = self._state, None
            return state
        resident = self.resident
        servable = (lease for lease in self.leases.values() if resident and lease.oldest_step <= resident.step)
        lease = next(servable, None)
        self._has_learned = bool(self._feedback) and (lease is None or not self._has_learned)
        return self._feedback.popleft() if self._has_learned else lease


def _bytes_of(message: Lease | Feedback) -> int:
    """Of the past losses that it brings."""
    return 0 if message.histories is None else message.histories.nbytes
