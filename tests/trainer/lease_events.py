"""Leases in simulated time: sessions, lease book and pool are the real ones; scorers and training are events.

Unlike `tests.trainer.simulation`, where anything may happen next, every act has its time here: scoring at any speed, a
training step, weights on their way. What is left out is the cost of messages.
"""

import collections
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from common.protocol import PROTOCOL_VERSION, Hello, Lease, Message, Version
from common.transport import Channel
from tests.trainer.chunks import GENERATION, make_pool
from trainer.chunks import ScoredChunk
from trainer.issuing import Issuing
from trainer.publisher import Publisher
from trainer.sessions import Session, Sessions
from trainer.terms import Terms

CHUNK = 4
TERMS = Terms(
    run="", generation=GENERATION, seed=0, num_samples=100, num_classes=2, chunk_size=CHUNK, scores=("mms",),
    lowest_is_hard=True, transfer="reference", best_k=None, fingerprint={}, sample_shape=(2,), sample_dtype="float32",
    target_shape=(), leases_per_scorer=2,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A run. Durations in seconds.

    Attributes:
        chunk_s: what a chunk takes each of the scorers.
        fetch_s: from the announcement of a version until a scorer computes with it.
    """

    chunk_s: Sequence[float]
    step_s: float
    steps: int
    chunks_per_step: int = 5
    push_every: int = 8
    max_staleness: int = 64
    fetch_s: float = 0.0


@dataclass
class Scorer:
    """Scores its leases in order of arrival, one at a time."""

    session: Session
    chunk_s: float
    leases: collections.deque[Lease] = field(default_factory=collections.deque)
    is_busy: bool = False
    served: int = 0


class Events:
    """Runs when made.

    Attributes:
        served: chunks scored by each scorer.
        staleness: of each chunk that was used, in steps.
        fallbacks: steps that found too few chunks.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.staleness: list[int] = []
        self.fallbacks = 0
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._resident = 0
        self._pool = make_pool(
            chunk_size=CHUNK,
            chunks_per_step=setting.chunks_per_step,
            max_staleness=setting.max_staleness,
            push_every=setting.push_every,
            stop_step=setting.steps,
        )
        publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=1)
        self._sessions = Sessions(TERMS, self._pool, publisher, self._deliver, collections.Counter())
        self._issuing = Issuing(TERMS, self._pool, self._sessions, self._deliver)
        self._pool.on_room = self._issuing.issue_leases
        self._scorers = {str(number).encode(): self._joined(number, s) for number, s in enumerate(setting.chunk_s)}
        self._pool.announce(Version(GENERATION, 0))
        self._issuing.issue_leases()
        self._after(setting.step_s, lambda: self._step(0))
        while self._events:
            self._now, _, act = heapq.heappop(self._events)
            act()

    @property
    def served(self) -> list[int]:
        return [scorer.served for scorer in self._scorers.values()]

    def _joined(self, number: int, chunk_s: float) -> Scorer:
        hello = Hello(PROTOCOL_VERSION, "", str(number), number, "cpu", "float32", "synthetic", {}, 0, 0)
        welcome = TERMS.welcome(number, wire="float32", weights_port=0, version=None)
        return Scorer(self._sessions.begin(str(number).encode(), hello, welcome), chunk_s)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), act))

    def _deliver(self, peer: bytes, message: Message, channel: Channel) -> None:
        if isinstance(message, Lease):
            self._scorers[peer].leases.append(message)
            self._work(self._scorers[peer])

    def _work(self, scorer: Scorer) -> None:
        if scorer.is_busy or not scorer.leases or scorer.leases[0].oldest_step > self._resident:
            return
        scorer.is_busy = True
        lease, step = scorer.leases.popleft(), self._resident
        self._after(scorer.chunk_s, lambda: self._answer(scorer, lease, step))

    def _answer(self, scorer: Scorer, lease: Lease, step: int) -> None:
        chunk = ScoredChunk(lease.start, lease.stop, Version(GENERATION, step), {"mms": torch.zeros(CHUNK)})
        if self._pool.put(scorer.session.id, lease.lease, chunk):
            scorer.served += 1
        scorer.is_busy = False
        self._issuing.issue_leases()
        self._work(scorer)

    def _step(self, step: int) -> None:
        """The trainer takes its candidates and trains until the next step."""
        if step == self.setting.steps:
            self._pool.finish()
            self._events.clear()
            return
        self._pool.advance(step)
        taken = self._pool.take(step)
        self.staleness += [step - chunk.version.step for chunk in taken]
        self.fallbacks += not taken
        if step and step % self.setting.push_every == 0:
            self._pool.announce(Version(GENERATION, step))
            self._issuing.issue_leases()
            self._after(self.setting.fetch_s, lambda: self._land(step))
        self._after(self.setting.step_s, lambda: self._step(step + 1))

    def _land(self, step: int) -> None:
        self._resident = max(self._resident, step)
        for scorer in self._scorers.values():
            self._work(scorer)


def fairness(served: Sequence[int]) -> float:
    """Jain's index of shares, (Σx)² / (n·Σx²): 1 where all are equal, 1/n where one has everything.

    R. Jain, D. Chiu, W. Hawe 1984, DEC-TR-301.
    """
    squares = sum(one**2 for one in served)
    return sum(served) ** 2 / (len(served) * squares) if squares else 0.0
