"""What sessions cost the trainer's I/O thread, without sockets: the real service is handed messages as they arrive.

Up to a thousand scorers need no more than their messages, so costs that grow with their number are measured and not
extrapolated. What is left out is what sockets cost, see `socket_s`.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from common.buckets import WINDOW
from common.data.sources import open_source
from common.models import find_head
from common.protocol import (
    PROTOCOL_VERSION,
    Array,
    Candidates,
    Fetch,
    Heartbeat,
    Hello,
    Message,
    Spent,
    Version,
    encode,
)
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from tests.bench.arms import DIGITS, trainer_options
from trainer.assembly import assemble
from trainer.link import ScorerLink
from trainer.loop import make_model
from trainer.plan import Plan
from trainer.sessions import Session

BATCH_SIZE, CHUNKS_PER_STEP = 32, 5
CHUNK_SIZE = 2 * BATCH_SIZE
FOREVER = 10**9
BUCKETS = 4  # of the model here, in float32
MODEL = {**DIGITS, "model": "tests.bench.bulk:million_1"}


@dataclass(frozen=True)
class SessionCosts:
    """Seconds of the I/O thread with so many sessions, sockets left out.

    Attributes:
        chunk_s: an answer taken and the next lease given.
        beat_in_s, beat_out_s: a heartbeat of one scorer, one to it.
        tick_s: a tick, of which there are ten a second.
        hand_over_s: the first bucket of a version, to a scorer that has loaded the one before.
        fetch_s: the first bucket of a window that a scorer asks for; bucket_s: each further one, of any window.
    """

    num: int
    chunk_s: float
    beat_in_s: float
    beat_out_s: float
    tick_s: float
    hand_over_s: float
    fetch_s: float
    bucket_s: float


class Unplugged:
    """Stands for the I/O thread: sends nothing, and does at once what is posted."""

    def __init__(self) -> None:
        self.busy_s = 0.0

    def send(self, channel: Channel, frames: Any, peer: bytes | None = None, *, track: bool = False) -> None:
        pass

    def post(self, task: Callable[[], object]) -> None:
        self.busy_s += _timed(task)

    def spread(self, portion: Callable[[], bool]) -> None:
        while portion():
            pass

    def rest(self, seconds: float) -> None:
        pass

    def tick_within(self, seconds: float) -> None:
        pass


class Rehearsal:
    """A trainer's service with so many sessions of synthetic scorers, and weights of 4 MB."""

    def __init__(self, link: ScorerLink, num: int) -> None:
        self.io = Unplugged()
        self._link, self._service = link, link.service
        self._service.on_start(cast(IOThread, self.io))
        self._steps = itertools.count()
        self._version = Version(0, 0)
        self.announce()
        for number in range(num):
            hello = Hello(PROTOCOL_VERSION, "", f"scorer-{number}", number, "none", "float32", "synthetic", {}, 0, 0)
            self._hear(CONTROL, _peer(number), hello)
        self.sessions: list[Session] = list(self._service.sessions)
        assert len(self.sessions) == num, "a scorer was refused"
        self._step = 0

    def announce(self) -> float:
        """Push a version and hand it over, or hint at it; seconds of the I/O thread."""
        slot = self._link._publisher.push(next(self._steps))
        assert slot is not None, "every buffer is in use"
        assert slot.version is not None
        self._version = slot.version
        return _timed(lambda: self._service.announce(slot))

    def load(self) -> None:
        """Every scorer fetches the newest version, and tells that it has."""
        for session in self.sessions:
            self.fetch(session, 0, WINDOW)
            self.beat_in(session)

    def step(self) -> float:
        """The trainer takes a step's chunks and as many are answered; seconds of the I/O thread."""
        self.io.busy_s = 0.0
        if self._link.pool.take(self._step):
            self._step += 1
            self._link.pool.advance(self._step)
        return sum(self._chunk() for _ in range(CHUNKS_PER_STEP)) + self.io.busy_s

    def _chunk(self) -> float:
        session = next(one for one in self.sessions if one.leases)
        lease = next(iter(session.leases))
        scores = tuple(Array.of(np.ones(CHUNK_SIZE, dtype=np.float32)) for _ in session.welcome.scores)
        answer = Candidates(lease, self._version, CHUNK_SIZE, b"", scores, None, None, 0.0, 0.0)
        return self._hear(CONTROL, session.peer, answer)

    def beat_in(self, session: Session) -> float:
        beat = Heartbeat(session.progress, self._version, tuple(session.leases), session.progress, Spent(0, 0, 0, 0, 0))
        return self._hear(CONTROL, session.peer, beat)

    def beat_out(self) -> float:
        return _timed(self._service._beat)

    def tick(self) -> float:
        now = time.monotonic()
        self._service._next_beat = now + 1.0  # counted apart
        return _timed(lambda: self._service.on_tick(now))

    def fetch(self, session: Session, first: int, buckets: int) -> float:
        """A window of the newest version, of so many buckets from the first; seconds."""
        message = Fetch(session.id, self._version, first, buckets)
        return self._hear(WEIGHTS, b"w" + session.peer, message)

    def _hear(self, channel: Channel, peer: bytes, message: Message) -> float:
        frames = [memoryview(frame) for frame in encode(message)]
        return _timed(lambda: self._service.on_message(channel, peer, frames))


def session_costs(nums: list[int], rounds: int) -> dict[int, SessionCosts]:
    """For each number of sessions."""
    return {num: _costs(num, rounds) for num in nums}


def _costs(num: int, rounds: int) -> SessionCosts:
    with _rehearsal(num) as one:
        some = one.sessions[:: max(1, num // 16)]
        unasked, first, all_of_them = [], [], []
        for _ in range(rounds):
            one.load()
            unasked.append(one.announce() / num)
            one.announce()  # nobody has loaded the one before: hints
            first += [one.fetch(session, 0, 1) for session in some]
            for session in some:
                one.fetch(session, 1, WINDOW)  # to the end, so that the buffer is free
            one.announce()
            all_of_them += [one.fetch(session, 0, WINDOW) for session in some]
        unasked_s, fetch_s, whole_s = map(statistics.median, (unasked, first, all_of_them))
        bucket_s = max(0.0, (whole_s - fetch_s) / (BUCKETS - 1))
        return SessionCosts(
            num,
            chunk_s=statistics.median([one.step() / CHUNKS_PER_STEP for _ in range(4 * rounds)]),
            beat_in_s=statistics.median([one.beat_in(session) for session in some for _ in range(rounds)]),
            beat_out_s=statistics.median([one.beat_out() / num for _ in range(rounds)]),
            tick_s=statistics.median([one.tick() for _ in range(rounds)]),
            hand_over_s=max(0.0, unasked_s - (BUCKETS - 1) * bucket_s),
            fetch_s=fetch_s,
            bucket_s=bucket_s,
        )


@contextlib.contextmanager
def _rehearsal(num: int) -> Iterator[Rehearsal]:
    options = trainer_options(
        MODEL,
        mode="stale",
        batch_size=BATCH_SIZE,
        candidates=CHUNKS_PER_STEP * CHUNK_SIZE,
        chunk_size=CHUNK_SIZE,
        max_staleness=FOREVER,
    )
    source = open_source(options)
    model = make_model(options, source)
    head, plan = find_head(model, options.head), Plan.of(options)
    link = ScorerLink(options, source, model, head, plan, 1, assemble(options, source, model, head, plan))
    try:
        yield Rehearsal(link, num)
    finally:
        link._io.stop()  # never started: closes what it opened


def _peer(number: int) -> bytes:
    return number.to_bytes(5)


def _timed(task: Callable[[], object]) -> float:
    """Of a core, whatever else the machine does."""
    started = time.thread_time()
    task()
    return time.thread_time() - started
