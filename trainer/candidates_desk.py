"""Takes in what scorers answer to their leases. Runs on the I/O thread."""

import collections
from collections.abc import Container

from common.errors import ProtocolError
from common.payload_room import Rooms
from common.protocol import Candidates, Lease, Version, unpack_mask
from trainer.audits import Audits
from trainer.intake import scored_chunk
from trainer.issuing import Issuing
from trainer.pool import Pool
from trainer.sessions import Session, Sessions
from trainer.terms import Terms
from trainer.traffic import Traffic

MOST_ANSWERED = 1024  # leases whose number is kept, to tell what comes twice from what comes late


class CandidatesDesk:
    """Checks answers; scored chunks go to the pool, those of audits to be compared.

    Args:
        announced: the versions that scorers may have.
        traffic: counts what is taken and what is not.
        audits: None where nothing is audited.
        rooms: where payload may be placed.

    Attributes:
        uniform: (number, mean loss, accuracy, tau) of each chunk that the model scored, for the training thread.
    """

    def __init__(
        self,
        terms: Terms,
        pool: Pool,
        sessions: Sessions,
        issuing: Issuing,
        announced: Container[Version],
        traffic: Traffic,
        audits: Audits | None,
        rooms: Rooms,
    ) -> None:
        self._terms = terms
        self._pool = pool
        self._sessions = sessions
        self._issuing = issuing
        self._announced = announced
        self._scored, self._events = traffic.scored, traffic.events
        self._audits = audits
        self._rooms = rooms
        self._answered: collections.deque[tuple[int, int]] = collections.deque(maxlen=MOST_ANSWERED)
        self.uniform: collections.deque[tuple[int, float, float | None, float | None]] = collections.deque(maxlen=256)

    def receive(self, session: Session, message: Candidates) -> bool:
        """Whether the message answers a lease of this session.

        Raises:
            ProtocolError: it answers one wrongly, which then goes to somebody else.
        """
        lease = session.leases.pop(message.lease, None)
        if lease is not None and lease.is_audit:
            self._on_audit(session, message, lease)
        elif lease is None or self._pool.lease(session.id, message.lease) is None:
            self._refuse(session, message)
            self._rooms.filled(session.id, message)  # dropped, and so its slot is free
            return False
        else:
            self._on_chunk(session, message, lease)
        self._issuing.issue_leases()
        return True

    def _refuse(self, session: Session, message: Candidates) -> None:
        self._pool.refuse("no such lease")
        if message.version.generation != self._terms.generation:
            self._events["results of an earlier life"] += 1
        elif (session.id, message.lease) in self._answered:
            self._events["results that came twice"] += 1
        else:
            self._events["results that came late"] += 1

    def _on_chunk(self, session: Session, message: Candidates, lease: Lease) -> None:
        try:
            message = self._rooms.filled(session.id, message)
            chunk = scored_chunk(message, lease, session.welcome, self._terms, self._announced)
        except ProtocolError:
            self._pool.expire([lease.lease])
            raise
        self._sessions.progressed(session, session.progress + 1, message.version)
        self._issuing.note_chunk(session, message.read_s + message.score_s)
        self._answered.append((session.id, message.lease))
        if message.dropped:
            self._events["candidates without a finite score"] += int(unpack_mask(message.dropped, message.num).sum())
        if self._pool.put(session.id, message.lease, chunk):
            self._scored[session.backend, session.precision] += message.num
            if message.loss_mean is not None and session.backend != "proxy":  # a proxy's loss is not the model's
                self.uniform.append((message.num, message.loss_mean, message.accuracy, message.tau))

    def _on_audit(self, session: Session, message: Candidates, lease: Lease) -> None:
        assert self._audits is not None, "an audit that nobody asked for"
        try:
            message = self._rooms.filled(session.id, message)
            chunk = scored_chunk(message, lease, session.welcome, self._terms, self._announced)
        except ProtocolError:
            self._audits.lose(session.id)
            raise
        self._sessions.progressed(session, session.progress + 1, message.version)
        exact, names = message.finite_exact_scores(), session.welcome.scores
        self._audits.compare(lease.lease, chunk, exact, names, session.precision)
