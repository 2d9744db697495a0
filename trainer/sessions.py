"""Scorers that were welcomed, as seen from the trainer: who is alive, who makes progress, who holds which lease."""

import collections
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import zmq

from common.protocol import Buffer, Hello, Lease, Message, Revoke, Spent, Version, Welcome
from common.sparing_log import SparingLog
from common.transport import CONTROL, Channel
from trainer.audits import Audits
from trainer.pool import Pool
from trainer.publisher import Publisher
from trainer.terms import FOREIGN_BACKENDS, Terms
from trainer.transfer import Transfer

log = logging.getLogger(__name__)

LOG_EVERY_S, LOG_AT_ONCE = 10.0, 50  # of what a peer that comes and goes can cause without end
NOTHING = Spent(0, 0, 0, 0, 0)

Sent = zmq.MessageTracker | bool | None
Outgoing = Message | list[Buffer]  # the frames of one that goes to several
Send = Callable[[bytes, Outgoing, Channel], Sent]


@dataclass
class Session:
    """One scorer between its WELCOME and its end."""

    id: int
    peer: bytes
    name: str
    incarnation: int
    precision: str
    backend: str
    welcome: Welcome
    heard_at: float
    progress_at: float
    progress: int = 0
    resident: Version | None = None
    stuck: bool = False
    spent: Spent = NOTHING
    chunk_s: float = 0.0  # that it takes to read and score one, of late; 0 before the first
    leases: dict[int, Lease] = field(default_factory=dict)  # as sent; the pool says which are current
    transfer: Transfer = field(default_factory=Transfer)  # of weights


class Sessions:
    """Owned by the I/O thread; the figures may be read by others.

    Args:
        send: (peer, message, channel), False if the peer cannot be reached.
        events: counters of what happened, by name.
        audits: hears of answers that will not come; None where nothing is audited.

    Attributes:
        spent: what all scorers so far did with their time, as of their last heartbeats; replaced, never changed.
        precisions: of the scorers that compute with the weights they fetch.
        backends: of all scorers.
        on_kinds: called when either may have changed.
    """

    def __init__(
        self,
        terms: Terms,
        pool: Pool,
        publisher: Publisher,
        send: Send,
        events: collections.Counter[str],
        audits: Audits | None = None,
    ) -> None:
        self._terms = terms
        self._pool = pool
        self._publisher = publisher
        self._send = send
        self._events = events
        self._audits = audits
        self._by_peer: dict[bytes, Session] = {}  # by the control channel's routing id
        self._by_id: dict[int, Session] = {}
        self._log = SparingLog(log, LOG_EVERY_S, LOG_AT_ONCE)
        self.spent = NOTHING
        self.precisions: frozenset[str] = frozenset()
        self.backends: frozenset[str] = frozenset()
        self.on_kinds: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._by_peer)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_peer.values()))

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._by_peer

    def get(self, peer: bytes) -> Session | None:
        return self._by_peer.get(peer)

    def by_id(self, session: int) -> Session | None:
        return self._by_id.get(session)

    def begin(self, peer: bytes, hello: Hello, welcome: Welcome) -> Session:
        """A new session; an earlier one of the same scorer ends, and its leases go to others."""
        for known in self:
            if known.incarnation == hello.incarnation or known.peer == peer:
                self.end(known, "says HELLO again", dead=known.peer != peer)
        now = time.monotonic()
        own = (hello.name, hello.incarnation, hello.precision, hello.backend)
        session = Session(welcome.session, peer, *own, welcome, now, now)
        self._by_peer[peer] = self._by_id[session.id] = session
        self._pool.holders.join(session.id, self._terms.leases_per_scorer)
        self._note_kinds()
        self._events["scorers joined"] += 1
        self._say("joined", f"scorer {hello.name} joined: {hello.device}, {hello.precision}")
        return session

    def end(self, session: Session, why: str, *, dead: bool) -> None:
        """Give its leases back. `dead`: nothing it still has queued will ever be read."""
        if self._by_id.pop(session.id, None) is None:
            return
        del self._by_peer[session.peer]
        self._note_kinds()
        lost = self._pool.held_by(session.id)
        self._pool.expire(lost)
        self._pool.holders.leave(session.id)
        self._lose_audits(session)
        self._publisher.slots.release(session.id, dead=dead)
        self._events["scorers left"] += 1
        self._say("left", f"scorer {session.name} left: {why}; {len(lost)} leases go to others")

    def _note_kinds(self) -> None:
        self.backends = frozenset(session.backend for session in self)
        own = (session.precision for session in self if session.backend not in FOREIGN_BACKENDS)
        self.precisions = frozenset(own)
        self.on_kinds()

    def _say(self, kind: str, text: str) -> None:
        self._log.say(kind, text, level=logging.INFO)

    def heard(self, peer: bytes) -> Session:
        session = self._by_peer[peer]
        session.heard_at = time.monotonic()
        return session

    def progressed(self, session: Session, progress: int, resident: Version | None) -> None:
        """Chunks answered are progress; so are weights loaded, which may have been all that it waited for."""
        has_loaded = resident != session.resident and session.backend not in FOREIGN_BACKENDS
        if progress != session.progress or has_loaded:
            session.progress_at = time.monotonic()
            if session.stuck:
                session.stuck = False
                self._pool.holders.step_in(session.id)
        session.progress, session.resident = progress, resident

    def note_spent(self, session: Session, spent: Spent | None) -> None:
        if spent is not None:
            now = zip(self.spent, session.spent, spent, strict=True)
            self.spent = Spent(*(total - before + after for total, before, after in now))
            session.spent = spent

    def give_back(self, session: Session, leases: Sequence[int]) -> None:
        """It will not answer these: the chunks go to others, an audit to nobody."""
        returned = [session.leases.pop(lease) for lease in leases if lease in session.leases]
        self._pool.expire([one.lease for one in returned if self._pool.lease(session.id, one.lease) is not None])
        if any(one.is_audit for one in returned):
            self._lose_audits(session)

    def judge(self, now: float) -> None:
        """Silence is death; no progress while holding leases is stuck. Both give the leases back."""
        if self._audits is not None:
            self._audits.expire(now)
        oldest_issues = self._pool.oldest_issues()
        for session in self:
            if now - session.heard_at > self._terms.silence_s:
                self.end(session, f"silent for {now - session.heard_at:.0f} s", dead=True)
                continue
            oldest = oldest_issues.get(session.id)
            if oldest is None or session.stuck:
                continue
            idle_s = now - max(oldest, session.progress_at)
            held_s = now - oldest  # of a few leases of each rank one after the other, each within its time
            if idle_s > self._terms.lease_s:
                self._set_aside(session, f"made no progress for {idle_s:.0f} s")
            elif held_s > self._terms.longest_held_s:
                self._set_aside(session, f"has not answered a lease for {held_s:.0f} s")

    def _set_aside(self, session: Session, why: str) -> None:
        session.stuck = True
        self._pool.holders.step_out(session.id)
        held = self._pool.held_by(session.id)
        self._pool.expire(held)
        self._lose_audits(session)
        session.leases.clear()
        self._events["scorers stuck"] += 1
        log.warning("scorer %s %s; its leases go to others", session.name, why)
        self._send(session.peer, Revoke(tuple(held)), CONTROL)

    def _lose_audits(self, session: Session) -> None:
        if self._audits is not None:
            self._audits.lose(session.id)

    # -- figures, for any thread --------------------------------------------------------------------------------------

    @property
    def num_serving(self) -> int:
        """Scorers that are not stuck."""
        return sum(not session.stuck for session in self)

    @property
    def num_resident(self) -> int:
        """Scorers that hold weights, so that their first chunk is a matter of one forward pass."""
        return sum(session.resident is not None for session in self)
