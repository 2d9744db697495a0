"""What one rank of a trainer says and what follows from it: the session and its leases. No sockets here.

A trainer that is broken or hostile is believed no more than a scorer: what cannot be is refused, and a few messages of
that kind in a row end the dialogue, with words that name the last one.
"""

import collections
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from common.errors import EndpointError, MarginstreamError, ProtocolError, Rejected
from common.payload_room import PayloadRoom
from common.protocol import (
    Candidates,
    Error,
    Feedback,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Message,
    PredictorState,
    Reject,
    Revoke,
    Welcome,
)
from common.sparing_log import SparingLog
from scorer.inbox import Inbox
from scorer.line import Line

log = logging.getLogger(__name__)

HELLO_EVERY_S = 1.0
FRESH_AFTER_S = 5.0  # without a word from the trainer; for a handshake over a slow connection it is long enough
STRIKES_AT_ONCE, STRIKES_PER_S = 8.0, 1 / 60
LOG_EVERY_S = 1.0  # of what a trainer can cause without end


class Role(Protocol):
    """What becomes of the scorer as a whole by what this rank says."""

    def check(self, welcome: Welcome) -> None:
        """Raise ProtocolError for a WELCOME that this rank cannot mean."""

    def begin(self, welcome: Welcome) -> None:
        """A session began."""

    def forget(self) -> None:
        """There is none any more, if there was one."""

    def end(self, why: str) -> None:
        """The rank said goodbye."""

    def fail(self, error: MarginstreamError) -> None:
        """It refuses this scorer, or makes no sense."""


class Dialogue:
    """The caller serialises all calls.

    Args:
        hello: what this scorer is.
        handlers: of the messages that are for the role and not for the session, by type.
        events: counters of what happened, by name.

    Attributes:
        hellos: that were sent and not answered: nobody is welcomed more often than he said hello.
    """

    def __init__(
        self,
        line: Line,
        hello: Hello,
        role: Role,
        handlers: Mapping[type, Callable[..., None]],
        events: "collections.Counter[str]",
    ) -> None:
        self.line = line
        self._hello = hello
        self._role = role
        self._events = events
        self._who = f"rank {line.rank} of the trainer" if line.rank else "the trainer"
        self._strikes, self._struck_at = 0.0, 0.0
        self._has_failed = False
        self._next_hello = self._next_beat = self._connected_at = 0.0
        self._log = SparingLog(log, LOG_EVERY_S)
        self.heard_at = time.monotonic()
        self.inbox = Inbox(events=events)
        self.room = PayloadRoom(line.endpoint)
        self.hellos = 0
        self._handlers: dict[type, Callable[..., None]] = {
            Welcome: self._on_welcome,
            Reject: self._on_reject,
            Lease: self.inbox.add_lease,
            Revoke: self.inbox.revoke,
            Goodbye: self._on_goodbye,
            Error: self._on_error,
            **handlers,
        }
        if hello.backend == "predictor":
            self._handlers |= {Feedback: self.inbox.add_feedback, PredictorState: self.inbox.add_state}

    @property
    def welcome(self) -> Welcome | None:
        """Of the session; None outside of one."""
        return self.inbox.welcome

    def connect(self, now: float) -> None:
        """Raises EndpointError, see `scorer.line.Line.connect`."""
        self.line.connect()
        self._connected_at = now

    def tick(self, now: float, beat: Callable[[Iterable[int]], Heartbeat]) -> None:
        """Outside of a session look for the rank; within one show that this scorer lives, and see whether it does.

        Args:
            beat: what to say of the leases of these numbers.
        """
        if (welcome := self.welcome) is None:
            self._greet(now)
        elif (silent_s := now - self.heard_at) > welcome.silence_s:
            self._events["silences of the trainer"] += 1
            log.warning("%s silent for %.0f s; looking for it", self._who.removeprefix("the "), silent_s)
            self.forget_session()
        elif now >= self._next_beat:
            self._next_beat = now + welcome.heartbeat_s
            self.line.send(beat(self.inbox.leases))

    def show_idle(self, beat: Callable[[Iterable[int]], Heartbeat]) -> None:
        """Without a lease, whose answer would do so, tell now which weights are resident: the next come unasked."""
        if self.welcome is not None and not self.inbox.leases:
            self.line.send(beat(()))

    def _greet(self, now: float) -> None:
        is_old = now - max(self.heard_at, self._connected_at) > FRESH_AFTER_S
        if not self.line.is_open or (self.line.is_remote and is_old):
            self._connect_again(now)  # after a cut the kernel tries the old one ever more seldom
        if now >= self._next_hello and not self._has_failed and self.line.send(self._hello):
            self.hellos += 1
            self._next_hello = now + HELLO_EVERY_S  # without a connection the next tick tries again

    def _connect_again(self, now: float) -> None:
        """Or at the next tick, where no socket is left to this process."""
        try:
            self.connect(now)
        except EndpointError as error:
            self._log.say("connection", f"no new connection to {self._who}: {error}; this is tried again")

    def hear(self, message: Message) -> None:
        """Act on a message. Raises ProtocolError for one that is not for this scorer, or not now."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is not for a scorer")
        self.heard_at = time.monotonic()
        handler(message)

    def on_nonsense(self, error: ProtocolError) -> None:
        """Tell the rank; too much of it ends the dialogue."""
        self._events["malformed messages"] += 1
        self._log.say("nonsense", f"{self._who} sent nonsense: {error}")
        self.line.send(Error("malformed", str(error)[:200]))
        now = time.monotonic()
        self._strikes = max(0.0, self._strikes - (now - self._struck_at) * STRIKES_PER_S) + 1
        self._struck_at = now
        if self._strikes > STRIKES_AT_ONCE - 1 and not self._has_failed:
            text = f"{self._who} at {self.line.endpoint} keeps sending what makes no sense; the last: {error}"
            self.line.send(Goodbye(text))
            self._fail(ProtocolError(text))

    def send_candidates(self, candidates: Candidates) -> None:
        """Send an answer, its inputs in memory that both sides have where there is some."""
        placed = self.room.placed(candidates)
        if not self.line.send(placed):
            self.room.take_back(placed)

    def close(self) -> None:
        """For good: the session and the connection."""
        self.forget_session()
        self.line.close()

    def forget_session(self) -> None:
        self.room.forget()
        self.inbox.forget()
        self._role.forget()

    # -- handlers -----------------------------------------------------------------------------------------------------

    def _on_welcome(self, welcome: Welcome) -> None:
        if self.welcome is not None and self.welcome.session == welcome.session:
            return
        if self.hellos < 1:
            raise ProtocolError("a WELCOME that answers no HELLO")
        self.hellos -= 1
        own = self._hello
        if own.num_samples and welcome.num_samples != own.num_samples:
            raise ProtocolError(f"WELCOME to a run on {welcome.num_samples} samples; this scorer has {own.num_samples}")
        if own.backend in ("torch", "proxy") and "predicted-loss" in welcome.scores:
            raise ProtocolError(f"WELCOME wants predicted losses, which --backend {own.backend} does not compute")
        self._role.check(welcome)
        self.forget_session()
        self.inbox.begin(welcome)
        self.room.begin(welcome)
        self._events["sessions"] += 1
        whose = "" if welcome.num_ranks == 1 else f" by rank {welcome.rank} of {welcome.num_ranks}"
        log.info("welcomed%s by generation %d at %s", whose, welcome.generation, self.line.endpoint)
        self._role.begin(welcome)

    def _on_reject(self, reject: Reject) -> None:
        text = f"{self._who} at {self.line.endpoint} refused this scorer: {reject.field}: {reject.message}"
        self._fail(Rejected(reject.field, text))

    def _fail(self, error: MarginstreamError) -> None:
        self._has_failed = True
        self._role.fail(error)

    def _on_goodbye(self, goodbye: Goodbye) -> None:
        self.line.send(Goodbye("heard"))  # at once, also while a chunk is being scored: the trainer waits for it
        self._role.end(goodbye.reason)

    def _on_error(self, error: Error) -> None:
        if error.code == "unknown-session":
            self.forget_session()
        else:
            self._events["errors from the trainer"] += 1
            self._log.say("reported", f"{self._who} reports: {error.text}")
