"""The service as a small simulation on one thread: lease book, pool, sessions and pace are the real ones.

Scorers fetch, score, die and join at random; the trainer steps, pushes and waits as `trainer.stream` does. Nothing here
takes time, so hundreds of runs with any allowed options fit into a test, and a deadlock is a run that stops moving.
"""

import collections
import random
from dataclasses import dataclass

import numpy as np
import torch

from common.protocol import PROTOCOL_VERSION, Hello, Lease, Message, Revoke, Version
from common.transport import Channel
from tests.trainer.chunks import GENERATION
from trainer.chunks import ScoredChunk
from trainer.issuing import Issuing
from trainer.leases import LeaseBook, Pace
from trainer.pool import Pool
from trainer.publisher import Publisher
from trainer.sessions import Sessions
from trainer.terms import Terms

CHUNK = 4


@dataclass(frozen=True)
class Options:
    """What a run may be told; `max_staleness` is at least `push_every` - 1.

    `kind` is a method's: a stream takes chunks one by one until `appetite` of them fill its batch, at each step another
    number; a planned method takes whatever there is and needs none, once it had one. `remembered` is the share of
    positions whose score is remembered, in tenths; at 10 no scorer is asked. `sweep` is that of `Pace`.
    """

    steps: int
    chunks_per_step: int
    exact: bool
    push_every: int
    max_staleness: int
    leases_per_scorer: int
    scorers: int
    first_step: int
    stop_step: int
    deaths: int
    seed: int
    kind: str = "pool"
    appetite: int = 1
    remembered: int = 0
    sweep: tuple[int, float] | None = None


class Scorer:
    """Answers its leases in any order, once its weights are new enough for them."""

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.resident: int | None = None
        self.leases: dict[int, Lease] = {}


class Simulation:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        pace = Pace(
            options.chunks_per_step, options.max_staleness, options.push_every, options.first_step, options.stop_step,
            options.sweep,
        )  # fmt: skip
        self.book = LeaseBook(CHUNK, pace, self.plan_visit)
        self.planned: dict[int, np.ndarray | None] = {}
        self.pool = Pool(self.book, min_candidates=CHUNK, chunks_per_step=options.chunks_per_step, exact=options.exact)
        self.terms = Terms(
            run="", generation=GENERATION, seed=0, num_samples=100, num_classes=2, chunk_size=CHUNK, scores=("mms",),
            lowest_is_hard=True, transfer="reference", best_k=None, fingerprint={}, sample_shape=(2,),
            sample_dtype="float32", target_shape=(), leases_per_scorer=options.leases_per_scorer,
        )  # fmt: skip
        publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=1)
        self.sessions = Sessions(self.terms, self.pool, publisher, self.deliver, collections.Counter())
        self.issuing = Issuing(self.terms, self.pool, self.sessions, self.deliver)
        self.scorers: dict[bytes, Scorer] = {}
        self.num_joined = 0
        self.completed = 0
        self.prepared: dict[int, list[ScoredChunk]] = {}
        self.used: list[ScoredChunk] = []
        self.staleness: list[int] = []
        self.queued: list[int] = []  # versions of the chunks that wait in a stream's queue
        self.late: list[ScoredChunk] = []
        self.pool.on_drop = self.late.append
        self.push(0)
        for _ in range(options.scorers):
            self.join()

    def plan_visit(self, start: int, stop: int) -> np.ndarray | None:
        assert start not in self.planned, "a chunk was planned twice"
        wanted = None
        if self.options.remembered:
            draw = np.random.default_rng((self.options.seed, start))
            wanted = draw.integers(10, size=stop - start) >= self.options.remembered
        self.planned[start] = wanted
        return wanted

    # -- what travels -------------------------------------------------------------------------------------------------

    def deliver(self, peer: bytes, message: Message, channel: Channel) -> bool:
        scorer = self.scorers.get(peer)
        if scorer is None:
            return False
        if isinstance(message, Lease):
            wanted = self.pool.lease(self.sessions.get(peer).id, message.lease).wanted
            planned = self.planned[message.start]
            assert wanted is planned, "a lease is issued again as it was planned"
            assert planned is None or planned.any(), "a scorer was asked for nothing"
            scorer.leases[message.lease] = message
        elif isinstance(message, Revoke):
            for lease in message.leases:
                scorer.leases.pop(lease, None)
        return True

    def push(self, step: int) -> None:
        self.pool.announce(Version(GENERATION, step))

    # -- what may happen next; each returns whether anything did -------------------------------------------------------

    def join(self) -> bool:
        self.num_joined += 1
        scorer = Scorer(f"scorer {self.num_joined}".encode())
        self.scorers[scorer.peer] = scorer
        hello = Hello(PROTOCOL_VERSION, "", "", self.num_joined, "cpu", "float32", "synthetic", {}, 0, 0)
        welcome = self.terms.welcome(self.num_joined, wire="float32", weights_port=0, version=None)
        self.sessions.begin(scorer.peer, hello, welcome)
        return True

    def die(self) -> None:
        peer = self.rng.choice(sorted(self.scorers))
        del self.scorers[peer]
        self.sessions.end(self.sessions.get(peer), "died", dead=True)
        self.join()

    def issue(self) -> bool:
        before = self.book.account.leased
        self.issuing.issue_leases()
        return self.book.account.leased > before

    def fetch(self, scorer: Scorer) -> bool:
        newest = self.pool.announced.step
        moved = scorer.resident != newest
        scorer.resident = newest
        return moved

    def score(self, scorer: Scorer) -> bool:
        fit = [lease for lease in scorer.leases.values() if scorer.resident is not None]
        fit = [lease for lease in fit if lease.oldest_step <= scorer.resident]
        if not fit:
            return False
        lease = self.rng.choice(fit)
        del scorer.leases[lease.lease]
        session = self.sessions.get(scorer.peer)
        scores = {"mms": torch.zeros(CHUNK)}
        wanted = self.planned[lease.start]
        chunk = ScoredChunk(lease.start, lease.stop, Version(GENERATION, scorer.resident), scores, wanted)
        assert self.pool.put(session.id, lease.lease, chunk), "an honest answer was refused"
        return True

    def feed(self) -> bool:
        """The feeder: has the next batch ready, one step ahead of the trainer."""
        step = self.completed + (self.completed in self.prepared)
        if step >= self.options.steps or step in self.prepared:
            return False
        if step == self.options.stop_step:
            self.pool.finish()
            for scorer in self.scorers.values():
                scorer.leases.clear()
        self.pool.advance(step)
        account = self.book.account
        before = account.dropped + account.consumed
        chunks = self.gather(step) if self.selects(step) else []
        if chunks is None:
            return account.dropped + account.consumed > before
        self.prepared[step] = chunks
        return True

    def gather(self, step: int) -> list[ScoredChunk] | None:
        """What a step trains on, as `StaleSourcing` has it; None if it must wait."""
        if self.options.kind == "pool":
            chunks = self.pool.take(step)
            self.use(step, chunks)
            return chunks or None
        if self.options.kind == "planned":
            while (chunk := self.pool.take_first(step)) is not None:
                self.use(step, [chunk])
            return [] if self.used else None
        appetite = 1 + (self.options.seed + step) % self.options.appetite
        while True:
            self.queued = [version for version in self.queued if step - version <= self.options.max_staleness]
            if len(self.queued) >= appetite:
                self.staleness += [step - version for version in self.queued[:appetite]]
                self.queued = self.queued[appetite:]
                return []
            self.pool.advance(step)
            chunk = self.pool.take_first(step)
            if chunk is None:
                return None
            self.use(step, [chunk])
            self.queued.append(chunk.version.step)

    def use(self, step: int, chunks: list[ScoredChunk]) -> None:
        self.staleness += [step - chunk.version.step for chunk in chunks]
        self.used += chunks

    def train(self) -> bool:
        step = self.completed
        if step not in self.prepared:
            announced = self.pool.announced.step
            if step < self.options.steps and self.selects(step) and announced < step - self.options.max_staleness:
                self.push(step)  # a trainer about to wait
                return True
            return False
        self.completed += 1
        if self.completed < self.options.stop_step and self.completed % self.options.push_every == 0:
            self.push(self.completed)
        return True

    def selects(self, step: int) -> bool:
        return self.options.first_step <= step < self.options.stop_step

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        deaths = self.options.deaths
        while self.completed < self.options.steps:
            if deaths and self.rng.random() < 0.05:
                deaths -= 1
                self.die()
            scorers = list(self.scorers.values())
            acts = [self.feed, self.train, self.issue]
            acts += [lambda one=one: self.fetch(one) for one in scorers]
            acts += [lambda one=one: self.score(one) for one in scorers]
            self.rng.shuffle(acts)
            happened = [act() for act in acts if self.rng.random() < 0.7]
            if not any(happened):
                # Nobody was chosen who could move: now everybody is. If this is in vain too, it is for ever.
                assert any([act() for act in acts]), f"deadlock before step {self.completed}"  # noqa: C419
            self.check()

    def check(self) -> None:
        account = self.pool.account()
        assert account.pop("leased") == sum(account.values())
        assert account["outstanding"] == self.book.account.outstanding()
        assert len(self.late) == account["dropped"], "whoever remembers is told of each chunk that came too late"
