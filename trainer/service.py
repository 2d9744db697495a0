"""The trainer's side of the protocol: sessions, leases out, candidates in, weights on demand. Runs on the I/O thread.

Nothing here is waited for by training: the pool is filled from this side and emptied from the other, and a scorer that
is slow, stuck, silent or talking nonsense costs its own leases, which are issued again.
"""

import collections
import logging
import secrets
import time
from dataclasses import dataclass, field

import zmq

from common.buckets import WINDOW, num_buckets
from common.errors import ProtocolError
from common.protocol import (
    PROTOCOL_VERSION,
    Candidates,
    Error,
    Fetch,
    ForeignHello,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Message,
    Reject,
    Return,
    Revoke,
    Version,
    VersionHint,
    Weights,
    WeightsGone,
    Welcome,
    decode,
    encode,
)
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from trainer.intake import scored_chunk
from trainer.pool import Pool
from trainer.publisher import Publisher, Slot, Wire
from trainer.terms import HEARTBEAT_S, Terms

log = logging.getLogger(__name__)

MAX_STRIKES = 8  # malformed or misplaced messages before a session is dropped


@dataclass
class Session:
    """A scorer that was welcomed, as seen from here."""

    id: int
    peer: bytes
    name: str
    incarnation: int
    precision: str
    welcome: Welcome
    heard_at: float
    progress: int = 0
    progress_at: float = 0.0
    leases: dict[int, Lease] = field(default_factory=dict)  # as sent; the pool says which are current
    resident: Version | None = None
    stuck: bool = False
    strikes: int = 0


@dataclass
class Traffic:
    """Counters of what came and went, for figures and tests."""

    bytes_in: int = 0
    bytes_out: int = 0
    candidates: int = 0
    events: collections.Counter[str] = field(default_factory=collections.Counter)


class Service:
    """Handler of the trainer's I/O thread.

    Args:
        terms: see there.
        pool: receives scored chunks, issues leases.
        publisher: holds the weights versions.
        weights_port: told to scorers on tcp; 0 for ipc.
    """

    def __init__(self, terms: Terms, pool: Pool, publisher: Publisher, *, weights_port: int = 0) -> None:
        self._terms = terms
        self._pool = pool
        self._publisher = publisher
        self.weights_port = weights_port
        self._io: IOThread
        self._sessions: dict[bytes, Session] = {}  # by the control channel's routing id
        self._announced: collections.deque[Version] = collections.deque(maxlen=4096)
        self._next_beat = 0.0
        self.traffic = Traffic()
        self.push_wanted = False  # a scorer joined that the newest version's dtype does not serve
        self.uniform_loss: collections.deque[tuple[int, float, float | None]] = collections.deque(maxlen=256)
        self._handlers = {
            Hello: self._on_hello,
            Candidates: self._on_candidates,
            Heartbeat: self._on_heartbeat,
            Return: self._on_return,
            Goodbye: self._on_goodbye,
            Error: self._on_error,
        }

    # -- the handler's four methods -----------------------------------------------------------------------------------

    def on_start(self, io: IOThread) -> None:
        self._io = io
        self._pool.on_room = lambda: io.post(self._issue)

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        self.traffic.bytes_in += sum(len(frame) for frame in frames)
        try:
            message = decode(frames)
            if channel == WEIGHTS:
                self._on_weights_channel(peer, message)
            elif isinstance(message, ForeignHello):
                self._reject(
                    peer, "protocol", f"this trainer speaks protocol {PROTOCOL_VERSION}, not {message.protocol}"
                )
            elif type(message) not in self._handlers:
                raise ProtocolError(f"{type(message).__name__} is not for a trainer")
            elif peer not in self._sessions and not isinstance(message, Hello):
                if not isinstance(message, Goodbye | Error):  # those want no answer
                    self._send(peer, Error("unknown-session", "say HELLO first"))
            else:
                self._handlers[type(message)](peer, message)  # type: ignore[operator]
        except ProtocolError as error:
            self._strike(channel, peer, error)

    def on_tick(self, now: float) -> None:
        for session in list(self._sessions.values()):
            self._judge(session, now)
        if now >= self._next_beat:
            self._next_beat = now + HEARTBEAT_S
            for session in list(self._sessions.values()):
                version = self._version_for(session.precision)
                self._send(session.peer, Heartbeat(self._pool.num_arrived, version, (), self._pool.next_step))
        self._issue()

    def on_stop(self) -> None:
        for session in list(self._sessions.values()):
            self._send(session.peer, Goodbye("the trainer has ended"))

    # -- asked by the training thread, through io.post ----------------------------------------------------------------

    def announce(self, slot: Slot) -> None:
        """Tell the scorers of a new version and let leases move on."""
        version = self._publisher.announce(slot)
        self._announced.append(version)
        self._pool.announce(version)
        hint = VersionHint(version, self._publisher.manifest(slot).total_bytes)
        for session in list(self._sessions.values()):
            if self._version_for(session.precision) == version:
                self._send(session.peer, hint)
        self._issue()

    def revoke(self, leases: dict[int, list[int]]) -> None:
        """Selection is over: scorers need not finish what they hold (leases by session)."""
        for session in list(self._sessions.values()):
            if session.id in leases:
                self._send(session.peer, Revoke(tuple(leases[session.id])))

    # -- read by the training thread ----------------------------------------------------------------------------------

    @property
    def wire(self) -> Wire:
        """Dtype of the next push: as asked, or bf16 when no scorer computes in float32."""
        if self._terms.wire != "auto":
            return "bf16" if self._terms.wire == "bf16" else "float32"
        precisions = {session.precision for session in list(self._sessions.values())}
        return "bf16" if precisions and "float32" not in precisions else "float32"

    @property
    def num_scorers(self) -> int:
        return len(self._sessions)

    @property
    def num_resident(self) -> int:
        """Scorers that hold weights, so that their first chunk is a matter of one forward pass."""
        return sum(session.resident is not None for session in list(self._sessions.values()))

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _on_hello(self, peer: bytes, hello: Hello) -> None:
        if (mismatch := self._terms.mismatch(hello)) is not None:
            self._reject(peer, *mismatch)
            return
        for known in list(self._sessions.values()):
            if known.incarnation == hello.incarnation or known.peer == peer:
                self._end(known, "says HELLO again", dead=known.peer != peer)
        now = time.monotonic()
        version = self._version_for(hello.precision)
        self.push_wanted |= version is None
        self.traffic.events["scorers joined"] += 1
        log.info("scorer %s joined: %s, %s", hello.name, hello.device, hello.precision)
        welcome = self._terms.welcome(
            secrets.randbits(63), wire=self.wire, weights_port=self.weights_port, version=version
        )
        self._sessions[peer] = Session(
            welcome.session, peer, hello.name, hello.incarnation, hello.precision, welcome, now, progress_at=now
        )
        self._send(peer, welcome)
        self._issue()

    def _version_for(self, precision: str) -> Version | None:
        """The newest version, unless it was rounded to bf16 and a float32 scorer should wait for an exact one."""
        newest = self._publisher.newest
        if newest is None or (newest.wire == "bf16" and precision == "float32" and self._terms.wire == "auto"):
            return None
        return newest.version

    def _reject(self, peer: bytes, name: str, message: str) -> None:
        self.traffic.events["scorers rejected"] += 1
        log.warning("scorer refused: its %s differs: %s", name, message)
        self._send(peer, Reject(name, message))

    def _end(self, session: Session, why: str, *, dead: bool) -> None:
        if self._sessions.pop(session.peer, None) is None:
            return
        lost = self._pool.held_by(session.id)
        self._pool.expire(lost)
        self._publisher.release(session.id, dead=dead)
        self.traffic.events["scorers left"] += 1
        log.info("scorer %s left: %s; %d leases go to others", session.name, why, len(lost))

    def _judge(self, session: Session, now: float) -> None:
        """Silence is death; no progress while holding leases is stuck. Both give the leases back."""
        if now - session.heard_at > self._terms.silence_s:
            self._end(session, f"silent for {now - session.heard_at:.0f} s", dead=True)
            return
        oldest = self._pool.oldest_issue(session.id)
        since = max(oldest, session.progress_at) if oldest is not None else now
        if not session.stuck and now - since > self._terms.lease_s:
            session.stuck = True
            held = self._pool.held_by(session.id)
            self._pool.expire(held)
            self.traffic.events["scorers stuck"] += 1
            log.warning("scorer %s made no progress for %.0f s; its leases go to others", session.name, now - since)
            self._send(session.peer, Revoke(tuple(held)))

    def _strike(self, channel: Channel, peer: bytes, error: ProtocolError) -> None:
        self.traffic.events["malformed messages"] += 1
        log.warning("a peer sent nonsense: %s", error)
        session = self._sessions.get(peer)
        if channel == CONTROL:
            self._send(peer, Error("malformed", str(error)[:200]))
        if session is not None:
            session.strikes += 1
            if session.strikes >= MAX_STRIKES:
                self._end(session, "keeps sending nonsense", dead=True)

    def _heard(self, peer: bytes) -> Session:
        session = self._sessions[peer]
        session.heard_at = time.monotonic()
        return session

    def _progressed(self, session: Session, progress: int) -> None:
        if progress != session.progress:
            session.progress = progress
            session.progress_at = time.monotonic()
            session.stuck = False

    # -- messages -----------------------------------------------------------------------------------------------------

    def _on_heartbeat(self, peer: bytes, beat: Heartbeat) -> None:
        session = self._heard(peer)
        session.resident = beat.resident
        self._progressed(session, beat.progress)

    def _on_return(self, peer: bytes, message: Return) -> None:
        session = self._heard(peer)
        self._pool.expire([lease for lease in message.leases if self._pool.lease(session.id, lease) is not None])
        self._issue()

    def _on_goodbye(self, peer: bytes, message: Goodbye) -> None:
        self._end(self._sessions[peer], message.reason, dead=False)
        self._issue()

    def _on_error(self, peer: bytes, message: Error) -> None:
        self._heard(peer)
        self.traffic.events["errors from scorers"] += 1
        log.warning("scorer %s reports: %s", self._sessions[peer].name, message.text)

    def _on_candidates(self, peer: bytes, message: Candidates) -> None:
        session = self._heard(peer)
        lease = session.leases.pop(message.lease, None)
        if lease is None or self._pool.lease(session.id, message.lease) is None:
            self._pool.refuse("no such lease")  # late, duplicate, or of an earlier life
            self._issue()
            return
        try:
            chunk = scored_chunk(message, lease, session.welcome, self._terms, self._announced)
        except ProtocolError:
            self._pool.expire([lease.lease])
            raise
        self._progressed(session, session.progress + 1)
        session.resident = message.version
        if self._pool.put(session.id, message.lease, chunk):
            self.traffic.candidates += message.num
            if message.loss_mean is not None:
                self.uniform_loss.append((message.num, message.loss_mean, message.accuracy))
        self._issue()

    # -- weights ------------------------------------------------------------------------------------------------------

    def _on_weights_channel(self, peer: bytes, message: Message) -> None:
        if not isinstance(message, Fetch):
            raise ProtocolError(f"{type(message).__name__} on the weights channel")
        session = next((known for known in self._sessions.values() if known.id == message.session), None)
        if session is None:
            return  # the control channel tells it to say HELLO again
        session.heard_at = time.monotonic()
        slot = self._publisher.open(message.version, session.id)
        if slot is None:
            newest = self._publisher.newest
            version = newest.version if newest is not None else None
            self._send(peer, WeightsGone(message.version, version), channel=WEIGHTS)
            return
        manifest = self._publisher.manifest(slot)
        total = num_buckets(manifest.total_bytes)
        stop = min(message.first_bucket + min(message.num_buckets, WINDOW), total)
        for bucket in range(message.first_bucket, stop):
            data, checksum = self._publisher.bucket(slot, bucket)
            reply = Weights(
                version=message.version,
                bucket=bucket,
                num_buckets=total,
                total_bytes=manifest.total_bytes,
                crc32=checksum,
                manifest=manifest.rows if bucket == 0 else None,
                buffer=data,
            )
            sent = self._send(peer, reply, channel=WEIGHTS)
            tracker = sent if isinstance(sent, zmq.MessageTracker) else None
            self._publisher.sent(slot, session.id, tracker, last=bucket == total - 1)

    # -- leases and sending -------------------------------------------------------------------------------------------

    def _issue(self) -> None:
        """Give leases to whoever holds the fewest, until nobody may have more."""
        credits = self._terms.leases_per_scorer * len(self._sessions)
        free = [session for session in self._sessions.values() if not session.stuck]
        held = {session.id: len(self._pool.held_by(session.id)) for session in free}
        while free:
            session = min(free, key=lambda one: held[one.id])
            if held[session.id] >= self._terms.leases_per_scorer:
                return
            issued = self._pool.issue(session.id, credits)
            if issued is None:
                return
            held[session.id] += 1
            generation, deadline_s = self._terms.generation, self._terms.lease_s
            lease = Lease(issued.lease, generation, issued.start, issued.stop, b"", issued.oldest_step, deadline_s)
            session.leases[lease.lease] = lease
            if self._send(session.peer, lease) is False:
                free.remove(session)

    def _send(self, peer: bytes, message: Message, *, channel: Channel = CONTROL) -> "zmq.MessageTracker | bool | None":
        """Send a message; a peer that is gone or does not read gives its leases back."""
        frames = encode(message)
        sent = self._io.send(channel, frames, peer)
        if sent is False:
            session = self._sessions.get(peer)
            if session is not None:
                self._end(session, "cannot be reached", dead=True)
        else:
            self.traffic.bytes_out += sum(len(frame) for frame in frames)
        return sent
