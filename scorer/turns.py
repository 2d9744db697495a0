"""Which work is next, of all that the ranks of a trainer ask for."""

import itertools
from collections.abc import Iterable

from common.protocol import Lease, Version, Welcome
from scorer.inbox import Held, Inbox, Work


class Turns:
    """Parameters first, then feedback and leases in turns while there are both, so that neither starves.

    Of the leases that the resident version may serve the one that is due first, of the feedback what has waited
    longest: no rank waits for another's sake. The caller serialises all calls.
    """

    def __init__(self) -> None:
        self._has_learned = False  # the last work was feedback
        self._num_last = self._num_left = 0  # leases of the last work, and those that were left then

    def next_work(self, inboxes: Iterable[Inbox], resident: Version | None, most: int = 1) -> Work | None:
        """What is next; leases stay in their inbox, everything else is taken out.

        Args:
            most: leases to do together. Half of what there is and will be, the larger one: the answers to them bring
                new ones, which must not be waited for.
        """
        in_session = [(inbox.welcome, inbox) for inbox in inboxes if inbox.welcome is not None]
        for welcome, inbox in in_session:
            if (state := inbox.take_state()) is not None:
                return Work(state, welcome, resident)
        leases = [] if resident is None else [(held, w) for w, inbox in in_session for held in inbox.servable(resident)]
        due = min(leases, key=_due_at, default=None)
        fed = [(at, welcome, inbox) for welcome, inbox in in_session if (at := inbox.fed_at) is not None]
        self._has_learned = bool(fed) and (due is None or not self._has_learned)
        if self._has_learned:
            _, welcome, inbox = min(fed, key=lambda waiting: waiting[0])
            return Work(inbox.take_feedback(), welcome, resident)
        if due is None:
            return None
        on_way = max(0, self._num_last - max(0, len(leases) - self._num_left))  # for those of the last work
        num = min(most, (len(leases) + on_way + 1) // 2)
        along = _next_of_its_session(leases, num) if num > 1 and not due[0].lease.is_audit else ()
        self._num_last = 1 + len(along)
        self._num_left = len(leases) - self._num_last
        return Work(due[0].lease, due[1], resident, along)


Waiting = tuple[Held, Welcome]


def _due_at(waiting: Waiting) -> float:
    return waiting[0].due_at


def _next_of_its_session(leases: list[Waiting], num: int) -> tuple[Lease, ...]:
    """Of the first `num` that are due those after the first, up to one of another session or an audit."""
    (_, welcome), *others = sorted(leases, key=_due_at)[:num]
    ready = itertools.takewhile(lambda waiting: waiting[1] is welcome and not waiting[0].lease.is_audit, others)
    return tuple(held.lease for held, _ in ready)
