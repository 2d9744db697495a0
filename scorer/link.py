"""The scorer's side of the protocol: HELLO until welcomed, leases in, candidates out, weights fetched when hinted.

The I/O thread keeps the link alive while the main thread computes: it beats, fetches the newest weights into a staging
buffer and queues leases. The main thread takes work with `next_work`, and is the only one that touches the model.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from common.errors import PeerTimeout, ProtocolError
from common.protocol import Candidates, Hello, Lease, PredictorState, Return, Weights, Welcome, decode
from common.security.credentials import Credentials, Insecure
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from common.waiting import reported
from scorer.dialogue import Dialogue
from scorer.health import Watched
from scorer.inbox import Work
from scorer.landing import Landing
from scorer.ranks import Ranks
from scorer.staging import StagedWeights
from scorer.stopwatch import Stopwatch

log = logging.getLogger(__name__)

CONTROL_BYTES, WEIGHTS_BYTES = 32 << 20, 4 << 20  # of a frame: past losses of a chunk, and a bucket or a manifest


class Link:
    """A connection to one trainer, of one rank or more. Use as a context manager: leaving it gives all leases back.

    Args:
        endpoint: of the control channel of the trainer's rank 0.
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
        self._connect_s = connect_s
        self._security = security
        self.changed = threading.Condition()
        self.stopwatch = Stopwatch()
        self._taken_in: Welcome | None = None  # of the session whose weights the main thread loads
        self._worked_for: Welcome | None = None  # of the session whose work the main thread does
        limits: dict[Channel, int] = {CONTROL: CONTROL_BYTES, WEIGHTS: WEIGHTS_BYTES}
        self._io = IOThread("scorer-io", self, max_frame_bytes=limits, security=security)
        self._ranks = Ranks(
            endpoint,
            hello,
            self._io,
            check_manifest=check_manifest,
            wants_weights=wants_weights,
            stopwatch=self.stopwatch,
        )
        self.watched = Watched(self._ranks, self.stopwatch, self._io)

    def __enter__(self) -> "Link":
        self._ranks.first.connect(time.monotonic())
        self._io.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._io.post(lambda: self._ranks.say_goodbye("the scorer stops"))
        self._io.stop()

    # -- main thread --------------------------------------------------------------------------------------------------

    def next_work(self, most: int = 1) -> StagedWeights | Work | None:
        """What to do next: newer weights to load, leases that the resident weights may serve, or None at the end.

        Weights come first: latest wins, and a swap is only ever asked for here, between two chunks. What comes after
        them, see `scorer.turns.Turns`.

        Args:
            most: leases to do together.

        Raises:
            Rejected: the trainer refused this scorer.
            ProtocolError: it keeps sending what makes no sense.
            PeerTimeout: no trainer was heard for `connect_s`.
        """
        ranks = self._ranks
        with self.changed:
            while True:
                self.watched.pulse.beat()
                self._io.check()
                if ranks.state.error is not None:
                    raise ranks.state.error
                if ranks.state.ended is not None:
                    log.info("ending: %s", ranks.state.ended)
                    return None
                if (silent_s := time.monotonic() - ranks.first.heard_at) > self._connect_s:
                    raise PeerTimeout(
                        reported(
                            f"no trainer heard at {self._endpoint} for {silent_s:.0f} s; "
                            + (self._trouble or "is it running, with --listen of the same endpoint?")
                        )
                    )
                if not self._io.alive:
                    raise self._io.error or RuntimeError("the I/O thread ended")
                if ranks.first.welcome is not None and (staged := ranks.versions.fetcher.take()) is not None:
                    self._taken_in = ranks.first.welcome
                    return staged
                if (work := ranks.next_work(most)) is not None:
                    self._worked_for = work.welcome
                    return work
                self.changed.wait(0.5)

    @property
    def _trouble(self) -> str | None:
        return None if self._security is None else self._security.trouble

    def loaded(self, staged: StagedWeights) -> None:
        """The staged weights were copied into the model: their buffer may be filled again."""
        with self.changed:
            if self._taken_in is not None and self._ranks.first.welcome is self._taken_in:
                self._ranks.versions.resident = staged.version
        self._io.post(lambda: self._give_back(staged))

    def answer(self, lease: Lease, candidates: Candidates) -> None:
        """See `answer_all`."""
        self.answer_all([(lease, candidates)])

    def answer_all(self, answers: Sequence[tuple[Lease, Candidates]]) -> None:
        """Send chunks' scores to whom `next_work` named, unless a lease was revoked or the session has ended."""
        wanted: list[tuple[Dialogue, Candidates]] = []
        with self.changed:
            state = self._ranks.state
            for lease, candidates in answers:
                state.progress += 1  # also when nobody wants it any more: this scorer is not stuck
                if (asker := self._asker_of(lease)) is not None:
                    wanted.append((asker, candidates))
            state.events["results nobody wanted"] += len(answers) - len(wanted)
        if wanted:
            self._io.post(lambda: _send(wanted))

    def send(self, state: PredictorState) -> None:
        """Send parameters to the rank whose feedback `next_work` gave."""
        with self.changed:
            asker = self._asker
        if asker is not None:
            self._io.post(lambda: asker.line.send(state))

    def give_back(self, lease: Lease) -> None:
        """Return a lease that cannot be served."""
        with self.changed:
            asker = self._asker_of(lease)
        if asker is not None:
            self._io.post(lambda: asker.line.send(Return((lease.lease,))))

    @property
    def _asker(self) -> Dialogue | None:
        """Whose work the main thread does, unless that session is over: leases of others may have the same numbers."""
        return None if self._worked_for is None else self._ranks.of(self._worked_for)

    def _asker_of(self, lease: Lease) -> Dialogue | None:
        """Who wants the answer to this lease, and then no more; None if nobody does."""
        asker = self._asker
        return None if asker is None or asker.inbox.leases.pop(lease.lease, None) is None else asker

    def stop(self, why: str) -> None:
        """Make `next_work` return None. Safe in a signal handler's thread and from any other."""
        self._io.post(lambda: self._end(why))

    # -- I/O thread ---------------------------------------------------------------------------------------------------

    def on_start(self, io: IOThread) -> None:
        pass

    def on_stop(self) -> None:
        for dialogue in self._ranks:
            dialogue.room.forget()

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        with self.changed:
            dialogue = self._ranks.on(channel)
            if dialogue is None:
                return
            try:
                dialogue.hear(decode(frames))
            except ProtocolError as error:
                if channel == WEIGHTS:  # they start anew
                    self._ranks.versions.fetcher.retry()
                dialogue.on_nonsense(error)
            self.changed.notify_all()

    def on_tick(self, now: float) -> None:
        self.watched.check()
        with self.changed:
            self._ranks.tick(now)

    def _end(self, why: str) -> None:
        with self.changed:
            self._ranks.state.ended = why
            self.changed.notify_all()

    def _give_back(self, staged: StagedWeights) -> None:
        with self.changed:
            self._ranks.versions.fetcher.give_back(staged)
            self._ranks.first.show_idle(self._ranks.beat)


def _send(answers: Sequence[tuple[Dialogue, Candidates]]) -> None:
    for asker, candidates in answers:
        asker.send_candidates(candidates)
