"""Takes in what scorers answer to their leases. Runs on the I/O thread."""

import collections
from collections.abc import Container

from common.errors import ProtocolError
from common.protocol import Candidates, Lease, Version
from trainer.audits import Audits
from trainer.intake import scored_chunk
from trainer.pool import Pool
from trainer.sessions import Session, Sessions
from trainer.terms import Terms


class CandidatesDesk:
    """Checks answers; scored chunks go to the pool, those of audits to be compared.

    Args:
        announced: the versions that scorers may have.
        scored: counts the candidates of the chunks that the pool took, by backend and precision of the scorer.
        audits: None where nothing is audited.

    Attributes:
        uniform: (number, mean loss, accuracy, tau) of each chunk that the model scored, for the training thread.
    """

    def __init__(
        self,
        terms: Terms,
        pool: Pool,
        sessions: Sessions,
        announced: Container[Version],
        scored: collections.Counter[tuple[str, str]],
        audits: Audits | None,
    ) -> None:
        self._terms = terms
        self._pool = pool
        self._sessions = sessions
        self._announced = announced
        self._scored = scored
        self._audits = audits
        self.uniform: collections.deque[tuple[int, float, float | None, float | None]] = collections.deque(maxlen=256)

    def receive(self, session: Session, message: Candidates) -> None:
        """Raises ProtocolError if the message does not answer its lease, which then goes to somebody else."""
        lease = session.leases.pop(message.lease, None)
        if lease is not None and lease.is_audit:
            self._on_audit(session, message, lease)
        elif lease is None or self._pool.lease(session.id, message.lease) is None:
            self._pool.refuse("no such lease")  # late, duplicate, or of an earlier life
            return
        else:
            self._on_chunk(session, message, lease)
        self._sessions.issue_leases()

    def _on_chunk(self, session: Session, message: Candidates, lease: Lease) -> None:
        try:
            chunk = scored_chunk(message, lease, session.welcome, self._terms, self._announced)
        except ProtocolError:
            self._pool.expire([lease.lease])
            raise
        self._sessions.progressed(session, session.progress + 1)
        session.resident = message.version
        if self._pool.put(session.id, message.lease, chunk):
            self._scored[session.backend, session.precision] += message.num
            if message.loss_mean is not None and session.backend != "proxy":  # a proxy's loss is not the model's
                self.uniform.append((message.num, message.loss_mean, message.accuracy, message.tau))

    def _on_audit(self, session: Session, message: Candidates, lease: Lease) -> None:
        assert self._audits is not None, "an audit that nobody asked for"
        try:
            chunk = scored_chunk(message, lease, session.welcome, self._terms, self._announced)
        except ProtocolError:
            self._audits.lose(session.id)
            raise
        self._sessions.progressed(session, session.progress + 1)
        exact, names = message.finite_exact_scores(), session.welcome.scores
        self._audits.compare(lease.lease, chunk, exact, names, session.precision)
