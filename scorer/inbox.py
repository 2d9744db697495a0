"""What a trainer asked of this scorer within a session: leases to score, and what a predictor of losses learns from."""

import collections
from dataclasses import dataclass, field
from typing import NamedTuple

from common.protocol import Feedback, Lease, PredictorState, Revoke, Version, Welcome

MAX_FEEDBACK = 64  # messages that wait to be learned from; the newest ones, where training is faster than learning


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
    """

    welcome: Welcome | None = None
    leases: dict[int, Lease] = field(default_factory=dict)
    resident: Version | None = None
    _state: PredictorState | None = None
    _feedback: collections.deque[Feedback] = field(default_factory=lambda: collections.deque(maxlen=MAX_FEEDBACK))
    _has_learned: bool = False  # the last work was feedback

    def begin(self, welcome: Welcome) -> None:
        """A new session: nothing of an earlier one holds, for the same version of another trainer is other weights."""
        self.forget()
        self.welcome = welcome

    def forget(self) -> None:
        self.welcome = self.resident = self._state = None
        self.leases.clear()
        self._feedback.clear()

    def add_lease(self, lease: Lease) -> None:
        if self.welcome is not None and lease.generation == self.welcome.generation:
            self.leases[lease.lease] = lease

    def revoke(self, revoke: Revoke) -> None:
        for lease in revoke.leases:
            self.leases.pop(lease, None)

    def add_feedback(self, feedback: Feedback) -> None:
        if self.welcome is not None:
            self._feedback.append(feedback)

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
