"""The trainer's side of the protocol: sessions, leases out, candidates in, weights on demand. Runs on the I/O thread.

Nothing here is waited for by training: the pool is filled from this side and emptied from the other, and a scorer that
is slow, stuck, silent or talking nonsense costs its own leases, which are issued again.
"""

import functools
import logging
from collections.abc import Callable

from common.errors import ProtocolError
from common.payload_room import Rooms
from common.protocol import (
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
    Return,
    Revoke,
    Version,
    decode,
    encode,
)
from common.sparing_log import SparingLog
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from trainer.attendance import Attendance
from trainer.audits import Audits
from trainer.candidates_desk import CandidatesDesk
from trainer.doorkeeper import Doorkeeper
from trainer.issuing import HistoriesOf, Issuing
from trainer.patience import HELLO_COST, Patience
from trainer.pool import Pool
from trainer.predictor_desk import PredictorDesk
from trainer.publisher import Publisher
from trainer.ranks.following import FollowedVersions
from trainer.reception import Reception
from trainer.sessions import Outgoing, Sent, Sessions
from trainer.slot import Slot
from trainer.terms import HEARTBEAT_S, Terms
from trainer.traffic import Traffic
from trainer.weights_desk import WeightsDesk

log = logging.getLogger(__name__)

FAREWELL = Goodbye("the trainer has ended")
LOG_EVERY_S = 1.0  # of what a peer can cause without end
COPY_POLL_S = 0.001  # while a version is on its way from the GPU
FAREWELL_S = 1.0  # for the answers of scorers that are stuck or lost; the others take milliseconds


class Service:
    """Handler of the trainer's I/O thread.

    Args:
        terms: see there.
        pool: receives scored chunks, issues leases.
        publisher: holds the weights versions; without slots on ranks that push none.
        histories_of, audits: see `Issuing`.

    Attributes:
        reception: tells scorers where else to connect, once that is known.
        push_wanted: there is a scorer that the newest version does not serve, see `WeightsDesk.is_left_out`.
        attendance: whether any scorer serves.
        says_farewell: in the end; else scorers look for another trainer in this place.
        watch: called at every tick, after it.
    """

    def __init__(
        self,
        terms: Terms,
        pool: Pool,
        publisher: Publisher,
        histories_of: HistoriesOf | None = None,
        audits: Audits | None = None,
    ) -> None:
        self._pool = pool
        self._io: IOThread
        self._next_beat = 0.0
        self._is_ending, self.says_farewell = False, True
        self.traffic = Traffic()
        self.push_wanted = False
        self.attendance = Attendance()
        self.watch: Callable[[float], None] = lambda now: None
        self.sessions = Sessions(terms, pool, publisher, self._send, self.traffic.events, audits)
        self.issuing = Issuing(terms, pool, self.sessions, self._send, histories_of, audits)
        self._door = Doorkeeper(Patience(terms.largest_array_bytes), self.sessions, self._send, self.traffic.events)
        self._log = SparingLog(log, LOG_EVERY_S)
        self.weights = WeightsDesk(publisher, self.sessions, self._send, terms.wire)
        self.reception = Reception(terms, self.sessions, self.weights, self._send, self._beat, self.traffic.events)
        self.predictor = PredictorDesk(self.sessions, self._send)
        self.rooms = Rooms(self.traffic.events)
        known = FollowedVersions(terms.generation, pool) if terms.rank else self.weights.announced
        self.candidates = CandidatesDesk(
            terms, pool, self.sessions, self.issuing, known, self.traffic, audits, self.rooms
        )
        self._handlers: dict[type[Message], Callable[..., bool | None]] = {
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
        self._door.rest = io.rest
        self._pool.on_room = lambda: io.post(self.issuing.issue_leases)

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        num_bytes = sum(len(frame) for frame in frames)
        self.traffic.bytes_in += num_bytes
        if not self._door.admits(channel, peer, num_bytes):
            return
        try:
            message = decode(frames)
            handle = self._on_weights_channel if channel == WEIGHTS else self._on_control_channel
            if handle(peer, message):
                self._door.give_back(channel, peer, num_bytes)
        except ProtocolError as error:
            self._door.on_nonsense(channel, peer, error)
        except Exception as error:
            self._door.on_broken(channel, peer, error)

    def on_tick(self, now: float) -> None:
        self.announce()
        self.sessions.judge(now)
        self.attendance.note(self.sessions.num_serving, now)
        self.watch(now)
        self.rooms.tick({session.id for session in self.sessions})
        if now >= self._next_beat:
            self._next_beat = now + HEARTBEAT_S
            self._beat()
        self.issuing.issue_leases()

    def _beat(self) -> None:
        while self.weights.tell():  # nobody is to learn from a heartbeat of a version that is about to be sent to him
            pass
        pool = self._pool
        beat = functools.cache(lambda version: encode(Heartbeat(pool.num_arrived, version, (), pool.next_step)))
        for session in self.sessions:
            self._send(session.peer, beat(self.weights.version_for(session)))

    def on_stop(self) -> None:
        self._is_ending = self.says_farewell
        for session in self.sessions if self.says_farewell else ():
            self._send(session.peer, FAREWELL)
        self._io.receive_until(lambda: not self._is_ending or len(self.sessions) == 0, FAREWELL_S)  # at once

    # -- asked by the training and feeder threads, through io.post ----------------------------------------------------

    def announce(self, slot: Slot | None = None) -> None:
        """Tell the scorers of a version, maybe at a later tick as a GPU still computes it, and let leases move on."""
        if (version := self.weights.announce(slot)) is not None:
            self._io.spread(self.weights.tell)
            self._pool.announce(version)
            self.push_wanted |= any(map(self.weights.is_left_out, self.sessions))  # joined since the push
            self.issuing.issue_leases()
        if self.weights.filled:
            self._io.tick_within(COPY_POLL_S)

    def follow(self, version: Version) -> None:
        """Rank 0 pushes this version, and tells scorers: the leases of this rank may move on."""
        self._pool.announce(version)
        self.issuing.issue_leases()

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

    # They return whether the message had been asked for.

    def _on_weights_channel(self, peer: bytes, message: Message) -> bool:
        if not isinstance(message, Fetch):
            raise ProtocolError(f"{type(message).__name__} on the weights channel")
        cost_bytes = self.weights.serve(peer, message)
        if cost_bytes:
            self._door.charge(WEIGHTS, peer, cost_bytes, 0)
        return not cost_bytes

    def _on_control_channel(self, peer: bytes, message: Message) -> bool:
        if isinstance(message, Hello | ForeignHello):
            self._on_hello(peer, message)
        elif type(message) not in self._handlers:
            raise ProtocolError(f"{type(message).__name__} is not for a trainer")
        elif peer in self.sessions:
            return self._handlers[type(message)](peer, message) is True
        elif not isinstance(message, Goodbye | Error):  # those want no answer
            self._send(peer, Error("unknown-session", "say HELLO first"))
        return False

    def _on_hello(self, peer: bytes, hello: Hello | ForeignHello) -> None:
        if not self._door.charge(CONTROL, peer, 0, HELLO_COST - 1):
            return
        if self._is_ending:
            self._send(peer, FAREWELL)
            return
        session = self.reception.receive(peer, hello)
        if session is not None:
            self.push_wanted |= self.weights.is_left_out(session)
            self._send(peer, session.welcome)
            self.predictor.welcome(session)
            self.issuing.issue_leases()

    def _on_heartbeat(self, peer: bytes, beat: Heartbeat) -> bool:
        """Whether it tells that a version which was sent is resident now: such a beat was asked for."""
        session = self.sessions.heard(peer)
        is_answer = beat.resident is not None and session.resident != beat.resident == session.transfer.version
        self.sessions.progressed(session, beat.progress, beat.resident)
        self.sessions.note_spent(session, beat.spent)
        return is_answer

    def _on_return(self, peer: bytes, message: Return) -> None:
        session = self.sessions.heard(peer)
        self.sessions.give_back(session, message.leases)
        self.issuing.issue_leases()

    def _on_goodbye(self, peer: bytes, message: Goodbye) -> None:
        self.sessions.end(self.sessions.heard(peer), message.reason, dead=False)
        self.issuing.issue_leases()

    def _on_error(self, peer: bytes, message: Error) -> None:
        session = self.sessions.heard(peer)
        self.traffic.events["errors from scorers"] += 1
        self._log.say("reported", f"scorer {session.name} reports: {message.text}")

    def _send(self, peer: bytes, message: Outgoing, channel: Channel = CONTROL) -> Sent:
        """Send a message or its frames; a peer that is gone or does not read gives its leases back."""
        frames = message if isinstance(message, list) else encode(message)
        sent = self._io.send(channel, frames, peer, track=channel == WEIGHTS)
        if sent is False:
            if (session := self.sessions.get(peer)) is not None:
                self.sessions.end(session, "cannot be reached", dead=True)
        else:
            self.traffic.bytes_out += sum(len(frame) for frame in frames)
        return sent
