"""The scorer's side of the protocol: HELLO until welcomed, leases in, candidates out, weights fetched when hinted.

A scorer that needs no weights fetches none: whatever version the trainer announces counts as resident at once.

The I/O thread keeps the link alive while the main thread computes: it beats, fetches the newest weights into a staging
buffer and queues leases. The main thread takes work with `next_work`, and is the only one that touches the model.
"""

import logging
import threading
import time
from collections.abc import Callable

from common.endpoints import weights_endpoint
from common.errors import PeerTimeout, ProtocolError
from common.protocol import (
    Candidates,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Message,
    PredictorState,
    Return,
    Weights,
    decode,
    encode,
)
from common.security.credentials import Credentials, Insecure
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from common.waiting import reported
from scorer.dialogue import Dialogue
from scorer.health import Watched
from scorer.inbox import Work
from scorer.landing import Landing
from scorer.staging import StagedWeights
from scorer.stopwatch import Stopwatch

log = logging.getLogger(__name__)

HELLO_EVERY_S = 1.0
FRESH_AFTER_S = 5.0  # without a word from the trainer; for a handshake over a slow connection it is long enough
CONTROL_BYTES, WEIGHTS_BYTES = 32 << 20, 4 << 20  # of a frame: past losses of a chunk, and a bucket or a manifest


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
        watched: what operators may look at.
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
        self._is_remote = endpoint.startswith("tcp://")
        self._hello = hello
        self._connect_s = connect_s
        self._security = security
        self.changed = threading.Condition()
        self.stopwatch = Stopwatch()
        self._taken_in: int | None = None  # session of the weights that the main thread loads
        self._worked_for: int | None = None  # session of the work that the main thread does
        self._next_hello = 0.0
        self._next_beat = 0.0
        self._connected_at = 0.0
        self._dialogue = Dialogue(
            endpoint,
            hello,
            answer=self._send,
            fetch=lambda fetch: self._send(fetch, WEIGHTS),
            open_weights=lambda port: self._io.connect(WEIGHTS, weights_endpoint(endpoint, port)),
            check_manifest=check_manifest,
            wants_weights=wants_weights,
            stopwatch=self.stopwatch,
        )
        self._inbox = self._dialogue.inbox
        limits: dict[Channel, int] = {CONTROL: CONTROL_BYTES, WEIGHTS: WEIGHTS_BYTES}
        self._io = IOThread("scorer-io", self, max_frame_bytes=limits, security=security)
        self.watched = Watched(self._dialogue, self.stopwatch, self._io)

    def __enter__(self) -> "Link":
        self._connect(time.monotonic())
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
            ProtocolError: it keeps sending what makes no sense.
            PeerTimeout: no trainer was heard for `connect_s`.
        """
        with self.changed:
            while True:
                self.watched.pulse.beat()
                self._io.check()
                state = self._dialogue.state
                if state.error is not None:
                    raise state.error
                if state.ended is not None:
                    log.info("ending: %s", state.ended)
                    return None
                if (silent_s := time.monotonic() - state.heard_at) > self._connect_s:
                    raise PeerTimeout(
                        reported(
                            f"no trainer heard at {self._endpoint} for {silent_s:.0f} s; "
                            + (self._trouble or "is it running, with --listen of the same endpoint?")
                        )
                    )
                if not self._io.alive:
                    raise self._io.error or RuntimeError("the I/O thread ended")
                if self._inbox.welcome is not None and (staged := self._dialogue.fetcher.take()) is not None:
                    self._taken_in = self._inbox.welcome.session
                    return staged
                if (work := self._inbox.next_work()) is not None:
                    self._worked_for = work.welcome.session
                    return work
                self.changed.wait(0.5)

    def _is_in_session(self) -> bool:
        """Whether the main thread works for this session: leases of another trainer may have the same numbers."""
        welcome = self._inbox.welcome
        return welcome is not None and welcome.session == self._worked_for

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
        """Send a chunk's scores, unless the lease was revoked or the session ended meanwhile."""
        with self.changed:
            self._dialogue.state.progress += 1  # also when nobody wants it any more: this scorer is not stuck
            if not self._is_in_session() or self._inbox.leases.pop(lease.lease, None) is None:
                self._dialogue.events["results nobody wanted"] += 1
                return
        self._io.post(lambda: self._send_candidates(candidates))

    def send(self, state: PredictorState) -> None:
        """Send parameters to the trainer."""
        self._io.post(lambda: self._send(state))

    def give_back(self, lease: Lease) -> None:
        """Return a lease that cannot be served."""
        with self.changed:
            if not self._is_in_session() or self._inbox.leases.pop(lease.lease, None) is None:
                return
        self._io.post(lambda: self._send(Return((lease.lease,))))

    def stop(self, why: str) -> None:
        """Make `next_work` return None. Safe in a signal handler's thread and from any other."""
        self._io.post(lambda: self._end(why))

    # -- I/O thread ---------------------------------------------------------------------------------------------------

    def on_start(self, io: IOThread) -> None:
        pass

    def on_stop(self) -> None:
        self._dialogue.room.forget()

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        with self.changed:
            try:
                self._dialogue.hear(decode(frames))
            except ProtocolError as error:
                self._dialogue.on_nonsense(error, is_weights=channel == WEIGHTS)
            self.changed.notify_all()

    def on_tick(self, now: float) -> None:
        self.watched.check()
        with self.changed:
            state, inbox = self._dialogue.state, self._inbox
            if inbox.welcome is None:
                if self._is_remote and now - max(state.heard_at, self._connected_at) > FRESH_AFTER_S:
                    self._connect(now)  # after a cut the kernel tries the old one ever more seldom
                if now >= self._next_hello and state.error is None and self._send(self._hello):
                    self._dialogue.hellos += 1
                    self._next_hello = now + HELLO_EVERY_S  # without a connection the next tick tries again
                return
            if now - state.heard_at > inbox.welcome.silence_s:
                self._dialogue.events["silences of the trainer"] += 1
                log.warning("trainer silent for %.0f s; looking for it", now - state.heard_at)
                self._dialogue.forget_session()
                return
            if now >= self._next_beat:
                self._next_beat = now + inbox.welcome.heartbeat_s
                spent = self.stopwatch.spent()
                self._send(Heartbeat(state.progress, inbox.resident, tuple(inbox.leases), state.progress, spent))
            self._dialogue.fetcher.tick(now)

    def _connect(self, now: float) -> None:
        self._connected_at = now
        self._io.connect(CONTROL, self._endpoint)

    def _send(self, message: Message, channel: Channel = CONTROL) -> bool:
        return self._io.send(channel, encode(message)) is not False

    def _send_candidates(self, candidates: Candidates) -> None:
        placed = self._dialogue.room.placed(candidates)
        if not self._send(placed):
            self._dialogue.room.take_back(placed)

    def _end(self, why: str) -> None:
        with self.changed:
            self._dialogue.state.ended = why
            self.changed.notify_all()

    def _give_back(self, staged: StagedWeights) -> None:
        with self.changed:
            self._dialogue.fetcher.give_back(staged)
