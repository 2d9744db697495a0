"""The scorer's side of the protocol: HELLO until welcomed, leases in, candidates out, weights fetched when hinted.

A scorer that needs no weights fetches none: whatever version the trainer announces counts as resident at once.

The I/O thread keeps the link alive while the main thread computes: it beats, fetches the newest weights into a staging
buffer and queues leases. The main thread takes work with `next_work`, and is the only one that touches the model.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.endpoints import weights_endpoint
from common.errors import PeerTimeout, ProtocolError, Rejected
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
from common.security.credentials import Credentials, Insecure
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from scorer.fetcher import Fetcher
from scorer.inbox import Inbox, Work
from scorer.landing import Landing
from scorer.staging import StagedWeights
from scorer.stopwatch import Stopwatch

log = logging.getLogger(__name__)

HELLO_EVERY_S = 1.0


@dataclass
class State:
    """Shared by the two threads under `Link.changed`, as the inbox is."""

    progress: int = 0
    ended: str | None = None  # why the trainer said goodbye
    rejected: Rejected | None = None
    heard_at: float = 0.0


class Link:
    """A connection to one trainer. Use as a context manager: leaving it gives all leases back.

    Args:
        endpoint: of the trainer's control channel.
        hello: what this scorer is.
        connect_s: how long to look for a trainer, at the start and after it fell silent.
        check_manifest: see `scorer.fetcher.Fetcher`.
        wants_weights: whether to fetch any.
        security: what this scorer shows to a trainer on tcp.

    Attributes:
        stopwatch: where the main thread's time goes; begins anew with each session, and travels with every heartbeat.
    """

    def __init__(
        self,
        endpoint: str,
        hello: Hello,
        *,
        connect_s: float,
        check_manifest: Callable[[Weights], Landing | None],
        wants_weights: bool = True,
        security: Credentials | Insecure | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._hello = hello
        self._connect_s = connect_s
        self._wants_weights = wants_weights
        self._security = security
        self.changed = threading.Condition()
        self.stopwatch = Stopwatch()
        self._state = State(heard_at=time.monotonic())
        self._inbox = Inbox()
        self._taken_in: int | None = None  # session of the weights that the main thread loads
        self._next_hello = 0.0
        self._next_beat = 0.0
        self._fetcher = Fetcher(lambda fetch: self._send(fetch, WEIGHTS), check_manifest)
        self._io = IOThread("scorer-io", self, max_frame_bytes=1 << 28, security=security)
        self._handlers: dict[type, Callable[..., None]] = {
            Welcome: self._on_welcome,
            Reject: self._on_reject,
            Lease: self._inbox.add_lease,
            Revoke: self._inbox.revoke,
            VersionHint: lambda message: self._on_version(message.version),
            Heartbeat: self._on_heartbeat,
            Goodbye: self._on_goodbye,
            Error: self._on_error,
        }
        if wants_weights:
            self._handlers |= {Weights: self._fetcher.receive, WeightsGone: self._fetcher.gone}
        if hello.backend == "predictor":
            self._handlers |= {Feedback: self._inbox.add_feedback, PredictorState: self._inbox.add_state}

    def __enter__(self) -> "Link":
        self._io.connect(CONTROL, self._endpoint)
        self._io.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._io.post(lambda: self._send(Goodbye("the scorer stops")))
        self._io.stop()

    # -- main thread --------------------------------------------------------------------------------------------------

    def next_work(self) -> StagedWeights | Work | None:
        """What to do next: newer weights to load, a lease that the resident weights may serve, or None at the end.

        Weights come first: latest wins, and a swap is only ever asked for here, between two chunks. A scorer that
        learns gets parameters to load first, then feedback and leases in turns while there are both.

        Raises:
            Rejected: the trainer refused this scorer.
            PeerTimeout: no trainer was heard for `connect_s`.
        """
        with self.changed:
            while True:
                state = self._state
                if state.rejected is not None:
                    raise state.rejected
                if state.ended is not None:
                    log.info("ending: %s", state.ended)
                    return None
                if (silent_s := time.monotonic() - state.heard_at) > self._connect_s:
                    raise PeerTimeout(
                        f"no trainer heard at {self._endpoint} for {silent_s:.0f} s; "
                        + (self._trouble or "is it running, with --listen of the same endpoint?")
                    )
                if not self._io.alive:
                    raise self._io.error or RuntimeError("the I/O thread ended")
                if self._inbox.welcome is not None and (staged := self._fetcher.take()) is not None:
                    self._taken_in = self._inbox.welcome.session
                    return staged
                if (work := self._inbox.next_work()) is not None:
                    return work
                self.changed.wait(0.5)

    @property
    def _trouble(self) -> str | None:
        return None if self._security is None else self._security.trouble

    def loaded(self, staged: StagedWeights) -> None:
        """The staged weights were copied into the model: their buffer may be filled again."""
        with self.changed:
            welcome = self._inbox.welcome
            if welcome is not None and welcome.session == self._taken_in:
                self._inbox.resident = staged.version
        self._io.post(lambda: self._give_back(staged))

    def answer(self, lease: Lease, candidates: Candidates) -> None:
        """Send a chunk's scores, unless the lease was revoked meanwhile."""
        with self.changed:
            self._state.progress += 1  # also when nobody wants it any more: this scorer is not stuck
            if self._inbox.leases.pop(lease.lease, None) is None:
                return
        self._io.post(lambda: self._send(candidates))

    def send(self, state: PredictorState) -> None:
        """Send parameters to the trainer."""
        self._io.post(lambda: self._send(state))

    def give_back(self, lease: Lease) -> None:
        """Return a lease that cannot be served."""
        with self.changed:
            self._inbox.leases.pop(lease.lease, None)
        self._io.post(lambda: self._send(Return((lease.lease,))))

    def stop(self, why: str) -> None:
        """Make `next_work` return None. Safe in a signal handler's thread and from any other."""
        self._io.post(lambda: self._end(why))

    # -- I/O thread ---------------------------------------------------------------------------------------------------

    def on_start(self, io: IOThread) -> None:
        pass

    def on_stop(self) -> None:
        pass

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        try:
            message = decode(frames)
            handler = self._handlers.get(type(message))
            if handler is None:
                raise ProtocolError(f"{type(message).__name__} is not for a scorer")
            with self.changed:
                self._state.heard_at = time.monotonic()
                handler(message)
                self.changed.notify_all()
        except ProtocolError as error:
            log.warning("the trainer sent nonsense: %s", error)
            if channel == WEIGHTS:
                self._fetcher.retry()
            self._send(Error("malformed", str(error)[:200]))

    def on_tick(self, now: float) -> None:
        with self.changed:
            state, inbox = self._state, self._inbox
            if inbox.welcome is None:
                if now >= self._next_hello and state.rejected is None and self._send(self._hello):
                    self._next_hello = now + HELLO_EVERY_S  # without a connection the next tick tries again
                return
            if now - state.heard_at > inbox.welcome.silence_s:
                log.warning("trainer silent for %.0f s; looking for it", now - state.heard_at)
                self._forget_session()
                return
            if now >= self._next_beat:
                self._next_beat = now + inbox.welcome.heartbeat_s
                spent = self.stopwatch.spent()
                self._send(Heartbeat(state.progress, inbox.resident, tuple(inbox.leases), state.progress, spent))
            self._fetcher.tick(now)

    def _send(self, message: Message, channel: Channel = CONTROL) -> bool:
        return self._io.send(channel, encode(message)) is not False

    def _end(self, why: str) -> None:
        with self.changed:
            self._state.ended = why
            self.changed.notify_all()

    def _give_back(self, staged: StagedWeights) -> None:
        with self.changed:
            self._fetcher.give_back(staged)

    def _forget_session(self) -> None:
        self._inbox.forget()
        self._fetcher.forget()

    # Handlers hold `changed`.

    def _on_welcome(self, welcome: Welcome) -> None:
        known = self._inbox.welcome
        if known is not None and known.session == welcome.session:
            return
        self._forget_session()
        self._inbox.begin(welcome)
        self.stopwatch.begin()
        if self._wants_weights:
            self._fetcher.begin(welcome.session)
            self._io.connect(WEIGHTS, weights_endpoint(self._endpoint, welcome.weights_port))
        log.info("welcomed by generation %d at %s", welcome.generation, self._endpoint)
        if welcome.version is not None:
            self._on_version(welcome.version)

    def _on_reject(self, reject: Reject) -> None:
        self._state.rejected = Rejected(
            reject.field, f"the trainer at {self._endpoint} refused this scorer: {reject.field}: {reject.message}"
        )

    def _on_version(self, version: Version) -> None:
        if self._wants_weights:
            self._fetcher.hint(version)
        elif self._inbox.welcome is not None:
            known = self._inbox.resident
            self._inbox.resident = version if known is None else max(known, version)

    def _on_heartbeat(self, beat: Heartbeat) -> None:
        # Hints are repeated with every beat, so a lost one costs a second.
        if beat.resident is not None:
            self._on_version(beat.resident)

    def _on_goodbye(self, goodbye: Goodbye) -> None:
        self._state.ended = goodbye.reason
        self._send(Goodbye("heard"))  # at once, also while a chunk is being scored: the trainer waits for it

    def _on_error(self, error: Error) -> None:
        if error.code == "unknown-session":
            self._forget_session()
        else:
            log.warning("the trainer reports: %s", error.text)


def new_incarnation() -> int:
    """A number that tells two starts of a scorer apart."""
    return secrets.randbits(63)
