"""What a trainer says and what follows from it: the session, its leases and versions. No sockets here.

A trainer that is broken or hostile is believed no more than a scorer: what cannot be is refused, and a few messages of
that kind in a row end this scorer, with words that name the last one.
"""

import collections
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import MarginstreamError, ProtocolError, Rejected
from common.payload_room import PayloadRoom
from common.protocol import (
    Error,
    Feedback,
    Fetch,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Message,
    PredictorState,
    Reject,
    Revoke,
    Version,
    VersionHint,
    Weights,
    WeightsGone,
    Welcome,
)
from common.sparing_log import SparingLog
from scorer.fetcher import Fetcher
from scorer.inbox import Inbox
from scorer.landing import Landing
from scorer.stopwatch import Stopwatch

log = logging.getLogger(__name__)

STRIKES_AT_ONCE, STRIKES_PER_S = 8.0, 1 / 60
LOG_EVERY_S = 1.0  # of what a trainer can cause without end


@dataclass
class State:
    """Shared by the two threads under `Link.changed`, as the inbox is."""

    progress: int = 0
    ended: str | None = None  # why the trainer said goodbye
    error: MarginstreamError | None = None  # why this scorer cannot go on
    heard_at: float = 0.0


class Dialogue:
    """The caller serialises all calls.

    Args:
        endpoint: of the trainer, for words.
        hello: what this scorer is.
        answer: sends a message to the trainer.
        fetch: sends a FETCH; False if there is no connection yet.
        open_weights: connects the weights channel, at the port told.
        check_manifest: see `scorer.fetcher.Fetcher`.
        stopwatch: begins anew with each session.

    Attributes:
        events: counters of what happened, by name.
        hellos: that were sent and not answered: nobody is welcomed more often than he said hello.
    """

    def __init__(
        self,
        endpoint: str,
        hello: Hello,
        *,
        answer: Callable[[Message], object],
        fetch: Callable[[Fetch], bool],
        open_weights: Callable[[int], object],
        check_manifest: Callable[[Weights], Landing | None],
        wants_weights: bool,
        stopwatch: Stopwatch,
    ) -> None:
        self._endpoint = endpoint
        self.hello = hello
        self._answer = answer
        self._open_weights = open_weights
        self._wants_weights = wants_weights
        self._stopwatch = stopwatch
        self._strikes, self._struck_at = 0.0, 0.0
        self._log = SparingLog(log, LOG_EVERY_S)
        self.state = State(heard_at=time.monotonic())
        self.events: collections.Counter[str] = collections.Counter()
        self.inbox = Inbox(events=self.events)
        self.fetcher = Fetcher(fetch, check_manifest, self.events)
        self.room = PayloadRoom(endpoint)
        self.hellos = 0
        self._handlers: dict[type, Callable[..., None]] = {
            Welcome: self._on_welcome,
            Reject: self._on_reject,
            Lease: self.inbox.add_lease,
            Revoke: self.inbox.revoke,
            VersionHint: lambda message: self._on_version(message.version),
            Heartbeat: self._on_heartbeat,
            Goodbye: self._on_goodbye,
            Error: self._on_error,
        }
        if wants_weights:
            self._handlers |= {Weights: self.fetcher.receive, WeightsGone: self._on_gone}
        if hello.backend == "predictor":
            self._handlers |= {Feedback: self.inbox.add_feedback, PredictorState: self.inbox.add_state}

    def hear(self, message: Message) -> None:
        """Act on a message. Raises ProtocolError for one that is not for this scorer, or not now."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is not for a scorer")
        self.state.heard_at = time.monotonic()
        handler(message)

    def on_nonsense(self, error: ProtocolError, *, is_weights: bool) -> None:
        """Tell the trainer; too much of it ends this scorer. `is_weights`: on their channel; they start anew."""
        self.events["malformed messages"] += 1
        self._log.say("nonsense", f"the trainer sent nonsense: {error}")
        if is_weights:
            self.fetcher.retry()
        self._answer(Error("malformed", str(error)[:200]))
        now = time.monotonic()
        self._strikes = max(0.0, self._strikes - (now - self._struck_at) * STRIKES_PER_S) + 1
        self._struck_at = now
        if self._strikes > STRIKES_AT_ONCE - 1 and self.state.error is None:
            text = f"the trainer at {self._endpoint} keeps sending what makes no sense; the last: {error}"
            self.state.error = ProtocolError(text)
            self._answer(Goodbye(text))

    def forget_session(self) -> None:
        self.room.forget()
        self.inbox.forget()
        self.fetcher.forget()

    # -- handlers -----------------------------------------------------------------------------------------------------

    def _on_welcome(self, welcome: Welcome) -> None:
        known = self.inbox.welcome
        if known is not None and known.session == welcome.session:
            return
        if self.hellos < 1:
            raise ProtocolError("a WELCOME that answers no HELLO")
        self.hellos -= 1
        own = self.hello
        if own.num_samples and welcome.num_samples != own.num_samples:
            raise ProtocolError(f"WELCOME to a run on {welcome.num_samples} samples; this scorer has {own.num_samples}")
        if own.backend in ("torch", "proxy") and "predicted-loss" in welcome.scores:
            raise ProtocolError(f"WELCOME wants predicted losses, which --backend {own.backend} does not compute")
        if self._endpoint.startswith("tcp://") and not welcome.weights_port:
            raise ProtocolError("WELCOME over tcp names no port for weights")
        self.forget_session()
        self.inbox.begin(welcome)
        self.room.begin(welcome)
        self._stopwatch.begin()
        if self._wants_weights:
            self.fetcher.begin(welcome.session)
            self._open_weights(welcome.weights_port)
        self.events["sessions"] += 1
        log.info("welcomed by generation %d at %s", welcome.generation, self._endpoint)
        if welcome.version is not None:
            self._on_version(welcome.version)

    def _on_reject(self, reject: Reject) -> None:
        self.state.error = Rejected(
            reject.field, f"the trainer at {self._endpoint} refused this scorer: {reject.field}: {reject.message}"
        )

    def _check_version(self, version: Version) -> None:
        welcome = self.inbox.welcome
        if welcome is not None and version.generation != welcome.generation:
            raise ProtocolError(f"version {tuple(version)} in a session of generation {welcome.generation}")

    def _on_version(self, version: Version) -> None:
        if self.inbox.welcome is None:
            return
        self._check_version(version)
        if self._wants_weights:
            self.fetcher.hint(version)
        else:
            known = self.inbox.resident
            self.inbox.resident = version if known is None else max(known, version)

    def _on_heartbeat(self, beat: Heartbeat) -> None:
        # Hints are repeated with every beat, so a lost one costs a second.
        if beat.resident is not None:
            self._on_version(beat.resident)

    def _on_gone(self, message: WeightsGone) -> None:
        if message.newest is not None:
            self._check_version(message.newest)
        self.fetcher.gone(message)

    def _on_goodbye(self, goodbye: Goodbye) -> None:
        self.state.ended = goodbye.reason
        self._answer(Goodbye("heard"))  # at once, also while a chunk is being scored: the trainer waits for it

    def _on_error(self, error: Error) -> None:
        if error.code == "unknown-session":
            self.forget_session()
        else:
            self.events["errors from the trainer"] += 1
            self._log.say("reported", f"the trainer reports: {error.text}")
