"""Who gets which lease, and how many: leases of the pool in turns, audits beside them. Runs on the I/O thread."""

from collections.abc import Callable

import numpy as np

from common.protocol import Array, Lease, pack_mask
from common.protocol.limits import MAX_LEASES
from common.transport import CONTROL
from trainer.audits import Audits
from trainer.leases import Outstanding, Wanted
from trainer.pool import Pool
from trainer.sessions import Send, Session, Sessions
from trainer.terms import FOREIGN_BACKENDS, Terms

AHEAD_S, QUICK_TIMES = 0.1, 3  # of work that a quick scorer holds in leases, and how many times as many as others

HistoriesOf = Callable[[int, int, Wanted], np.ndarray]


class Issuing:
    """Gives leases to the scorers of `sessions`.

    Args:
        histories_of: (start, stop, wanted) of a lease to (num, H) float32 past losses; None where nobody predicts any.
        audits: leases chunks a second time; None where nothing is audited.
    """

    def __init__(
        self,
        terms: Terms,
        pool: Pool,
        sessions: Sessions,
        send: Send,
        histories_of: HistoriesOf | None = None,
        audits: Audits | None = None,
    ) -> None:
        self._terms = terms
        self._pool = pool
        self._sessions = sessions
        self._send = send
        self._histories_of = histories_of
        self._audits = audits

    def note_chunk(self, session: Session, chunk_s: float) -> None:
        """A chunk took it so long. A quick scorer that does several leases at a time may hold more of them.

        Not so many that others would find none left, whatever became of it.
        """
        if session.backend != "torch" or session.precision == "float32":
            return  # one at a time
        session.chunk_s = chunk_s if not session.chunk_s else 0.8 * session.chunk_s + 0.2 * chunk_s
        least = self._terms.leases_per_scorer
        quick = int(AHEAD_S / self._terms.num_ranks / max(session.chunk_s, 1e-6))
        quick = min(quick, QUICK_TIMES * least, MAX_LEASES // 2)
        self._pool.holders.allow(session.id, max(least, min(quick, self._pool.most_ahead // len(self._sessions))))

    def issue_leases(self) -> None:
        """Give leases to whoever holds the fewest, of those to whoever waits longest, until nobody may have more."""
        self._issue_audits()
        holders = self._pool.holders
        credits = holders.credits
        unreached = []  # and passed over from then on
        while (first := holders.first()) is not None and (issued := self._pool.issue(first, credits)) is not None:
            session, lease = self._sessions.by_id(first), self._lease(issued)
            assert session is not None, "in line, and not there"
            session.leases[lease.lease] = lease
            if self._send(session.peer, lease, CONTROL) is False:
                holders.step_out(first)
                unreached.append(first)
        for one in unreached:
            holders.step_in(one)

    def _issue_audits(self) -> None:
        announced = self._pool.announced
        if self._audits is None or announced is None or not self._audits.is_due(announced.step):
            return
        for session in self._sessions:
            if session.stuck or session.backend in FOREIGN_BACKENDS:
                continue
            if (lease := self._audits.next_lease(session.id, announced.step)) is not None:
                session.leases[lease.lease] = lease
                self._send(session.peer, lease, CONTROL)

    def _lease(self, issued: Outstanding) -> Lease:
        start, stop, wanted = issued.start, issued.stop, issued.wanted
        return Lease(
            lease=issued.lease,
            generation=self._terms.generation,
            start=start,
            stop=stop,
            mask=b"" if wanted is None else pack_mask(wanted),
            oldest_step=issued.oldest_step,
            deadline_s=self._terms.lease_s,
            histories=None if self._histories_of is None else Array.of(self._histories_of(start, stop, wanted)),
        )
