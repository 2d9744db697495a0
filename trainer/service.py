"""The trainer's side of the protocol: sessions, leases out, candidates in, weights on demand. Runs on the I/O thread.

Nothing here is waited for by training: the pool is filled from this side and emptied from the other, and a scorer that
is slow, stuck, silent or talking nonsense costs its own leases, which are issued again.
"""

import collections
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from common.errors import ProtocolError
from common.protocol import (
    PROTOCOL_VERSION,
    Candidates,
    Error,
    Feedback,
    Fetch,
    ForeignHello,
    Goodbye,
    Heartbeat,
    Hello,
    Message,
    PredictorState,
    Reject,
    Return,
    Revoke,
    decode,
    encode,
)
from common.sparing_log import SparingLog
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from trainer.audits import Audits
from trainer.candidates_desk import CandidatesDesk
from trainer.pool import Pool
from trainer.predictor_desk import PredictorDesk
from trainer.publisher import Publisher, Slot
from trainer.sessions import HistoriesOf, Sent, Sessions
from trainer.terms import HEARTBEAT_S, Terms
from trainer.weights_desk import WeightsDesk

log = logging.getLogger(__name__)

FAREWELL = Goodbye("the trainer has ended")
LOG_EVERY_S = 1.0  # of what a peer can cause without end
COPY_POLL_S = 0.001  # while a version is on its way from the GPU
FAREWELL_S = 1.0  # for the answers of scorers that are stuck or lost; the others take milliseconds


@dataclass
class Traffic:
    """Counters of what came and went, for figures and tests."""

    bytes_in: int = 0
    bytes_out: int = 0
    scored: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)  # by backend, precision
    events: collections.Counter[str] = field(default_factory=collections.Counter)


class Service:
    """Handler of the trainer's I/O thread.

    Args:
        terms: see there.
        pool: receives scored chunks, issues leases.
        publisher: holds the weights versions.
        histories_of, audits: see `Sessions`.

    Attributes:
        weights_port: told to scorers on tcp; 0 for ipc.
        push_wanted: there is a scorer that the newest version does not serve, see `WeightsDesk.is_left_out`.
    """

    def __init__(
        self,
        terms: Terms,
        pool: Pool,
        publisher: Publisher,
        histories_of: HistoriesOf | None = None,
        audits: Audits | None = None,
    ) -> None:
        self._terms = terms
        self._pool = pool
        self._io: IOThread
        self._next_beat = 0.0
        self._is_ending = False
        self._log = SparingLog(log, LOG_EVERY_S)
        self.weights_port = 0
        self.traffic = Traffic()
        self.push_wanted = False
        self.sessions = Sessions(terms, pool, publisher, self._send, self.traffic.events, histories_of, audits)
        self.weights = WeightsDesk(publisher, self.sessions, self._send, terms.wire)
        self.predictor = PredictorDesk(self.sessions, self._send)
        self.candidates = CandidatesDesk(
            terms, pool, self.sessions, self.weights.announced, self.traffic.scored, audits
        )
        self._handlers: dict[type[Message], Callable[..., None]] = {
            Candidates: lambda peer, message: self.candidates.receive(self.sessions.heard(peer), message),
            Heartbeat: self._on_heartbeat,
            Return: self._on_return,
            Goodbye: self._on_goodbye,
            Error: self._on_error,
            PredictorState: lambda peer, message: self.predictor.receive(self.sessions.heard(peer), message),
        }

    # -- called by the I/O thread -------------------------------------------------------------------------------------

    def on_start(self, io: IOThread) -> None:
        self._io = io
        self._pool.on_room = lambda: io.post(self.sessions.issue_leases)

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        self.traffic.bytes_in += sum(len(frame) for frame in frames)
        try:
            message = decode(frames)
            if channel == WEIGHTS:
                self._on_weights_channel(peer, message)
            else:
                self._on_control_channel(peer, message)
        except ProtocolError as error:
            self.traffic.events["malformed messages"] += 1
            self._log.say("nonsense", f"a peer sent nonsense: {error}")
            if channel == CONTROL:
                self._send(peer, Error("malformed", str(error)[:200]))
            self.sessions.strike(peer)

    def on_tick(self, now: float) -> None:
        self.announce()
        self.sessions.judge(now)
        if now >= self._next_beat:
            self._next_beat = now + HEARTBEAT_S
            for session in self.sessions:
                version = self.weights.version_for(session)
                self._send(session.peer, Heartbeat(self._pool.num_arrived, version, (), self._pool.next_step))
        self.sessions.issue_leases()

    def on_stop(self) -> None:
        self._is_ending = True
        for session in self.sessions:
            self._send(session.peer, FAREWELL)
        self._io.receive_until(lambda: len(self.sessions) == 0, FAREWELL_S)  # they answer at once

    # -- asked by the training and feeder threads, through io.post ----------------------------------------------------

    def announce(self, slot: Slot | None = None) -> None:
        """Tell the scorers of a version, maybe at a later tick as a GPU still computes it, and let leases move on."""
        if (version := self.weights.announce(slot)) is not None:
            self._pool.announce(version)
            self.push_wanted |= any(map(self.weights.is_left_out, self.sessions))  # joined since the push
            self.sessions.issue_leases()
        if self.weights.filled:
            self._io.tick_within(COPY_POLL_S)

    def revoke(self, leases: dict[int, list[int]]) -> None:
        """Selection is over: scorers need not finish what they hold (leases by session)."""
        for session in self.sessions:
            if session.id in leases:
                self._send(session.peer, Revoke(tuple(leases[session.id])))

    def send_feedback(self, feedback: Feedback) -> None:
        """Have a predictor learn from losses of trained samples, if there is one."""
        told = self.predictor.feed(feedback)
        self.traffic.events["feedback sent" if told else "feedback without a predictor"] += 1

    @property
    def predictor_state(self) -> PredictorState | None:
        """The newest parameters of the predictor, for any thread; set them before the start of a restored run."""
        return self.predictor.state

    @predictor_state.setter
    def predictor_state(self, state: PredictorState | None) -> None:
        self.predictor.state = state

    # -- messages -----------------------------------------------------------------------------------------------------

    def _on_weights_channel(self, peer: bytes, message: Message) -> None:
        if not isinstance(message, Fetch):
            raise ProtocolError(f"{type(message).__name__} on the weights channel")
        self.weights.serve(peer, message)

    def _on_control_channel(self, peer: bytes, message: Message) -> None:
        if isinstance(message, ForeignHello):
            theirs = f"this trainer speaks protocol {PROTOCOL_VERSION}, not {message.protocol}"
            self._reject(peer, "protocol", theirs)
        elif isinstance(message, Hello):
            self._on_hello(peer, message)
        elif type(message) not in self._handlers:
            raise ProtocolError(f"{type(message).__name__} is not for a trainer")
        elif peer in self.sessions:
            self._handlers[type(message)](peer, message)
        elif not isinstance(message, Goodbye | Error):  # those want no answer
            self._send(peer, Error("unknown-session", "say HELLO first"))

    def _on_hello(self, peer: bytes, hello: Hello) -> None:
        if self._is_ending:
            self._send(peer, FAREWELL)
            return
        if (mismatch := self._terms.mismatch(hello)) is not None:
            self._reject(peer, *mismatch)
            return
        self.push_wanted |= self.weights.is_left_out(hello)
        welcome = self._terms.welcome(
            secrets.randbits(63),
            wire=self.weights.wire,
            weights_port=self.weights_port,
            version=self.weights.version_for(hello),
        )
        session = self.sessions.begin(peer, hello, welcome)
        self._send(peer, welcome)
        self.predictor.welcome(session)
        self.sessions.issue_leases()

    def _reject(self, peer: bytes, name: str, message: str) -> None:
        self.traffic.events["scorers rejected"] += 1
        log.warning("scorer refused: its %s differs: %s", name, message)
        self._send(peer, Reject(name, message))

    def _on_heartbeat(self, peer: bytes, beat: Heartbeat) -> None:
        session = self.sessions.heard(peer)
        session.resident = beat.resident
        self.sessions.progressed(session, beat.progress)
        self.sessions.note_spent(session, beat.spent)

    def _on_return(self, peer: bytes, message: Return) -> None:
        session = self.sessions.heard(peer)
        self.sessions.give_back(session, message.leases)
        self.sessions.issue_leases()

    def _on_goodbye(self, peer: bytes, message: Goodbye) -> None:
        self.sessions.end(self.sessions.heard(peer), message.reason, dead=False)
        self.sessions.issue_leases()

    def _on_error(self, peer: bytes, message: Error) -> None:
        session = self.sessions.heard(peer)
        self.traffic.events["errors from scorers"] += 1
        log.warning("scorer %s reports: %s", session.name, message.text)

    def _send(self, peer: bytes, message: Message, channel: Channel = CONTROL) -> Sent:
        """Send a message; a peer that is gone or does not read gives its leases back."""
        frames = encode(message)
        sent = self._io.send(channel, frames, peer, track=channel == WEIGHTS)
        if sent is False:
            session = self.sessions.get(peer)
            if session is not None:
                self.sessions.end(session, "cannot be reached", dead=True)
        else:
            self.traffic.bytes_out += sum(len(frame) for frame in frames)
        return sent
