"""Which work is next, of all that the ranks of a trainer ask for."""

from collections.abc import Iterable

from common.protocol import Version
from scorer.inbox import Inbox, Work


class Turns:
    """Parameters first, then feedback and leases in turns while there are both, so that neither starves.

    Of the leases that the resident version may serve the one that is due first, of the feedback what has waited
    longest: no rank waits for another's sake. The caller serialises all calls.
    """

    def __init__(self) -> None:
        self._has_learned = False  # the last work was feedback

    def next_work(self, inboxes: Iterable[Inbox], resident: Version | None) -> Work | None:
        """What is next; a lease stays in its inbox, everything else is taken out."""
        in_session = [(inbox.welcome, inbox) for inbox in inboxes if inbox.welcome is not None]
        for welcome, inbox in in_session:
            if (state := inbox.take_state()) is not None:
                return Work(state, welcome, resident)
        leases = [] if resident is None else [(w, held) for w, inbox in in_session for held in inbox.servable(resident)]
        due = min(leases, key=lambda lease: lease[1].due_at, default=None)
        fed = [(at, welcome, inbox) for welcome, inbox in in_session if (at := inbox.fed_at) is not None]
        self._has_learned = bool(fed) and (due is None or not self._has_learned)
        if self._has_learned:
            _, welcome, inbox = min(fed, key=lambda waiting: waiting[0])
            return Work(inbox.take_feedback(), welcome, resident)
        return None if due is None else Work(due[1].lease, due[0], resident)
