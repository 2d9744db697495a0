"""The service as a small simulation on one thread: lease book, pool, sessions and pace are the real ones.

Scorers fetch, score, die and join at random; the trainer steps, pushes and waits as `trainer.stream` does. Nothing here
takes time, so hundreds of runs with any allowed options fit into a test, and a deadlock is a run that stops moving.
"""

import collections
import random
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.protocol import PROTOCOL_VERSION, Hello, Lease, Message, Revoke, Version
from common.transport import Channel
from tests.trainer.chunks import GENERATION
from trainer.leases import LeaseBook, Pace
from trainer.pool import Pool, ScoredChunk
from trainer.publisher import Publisher
from trainer.sessions import Sessions
from trainer.terms import Terms

CHUNK = 4


@dataclass(frozen=True)
class Options:
    """What a run may be told; `max_staleness` is at least `push_every` - 1."""

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
            options.chunks_per_step, options.max_staleness, options.push_every, options.first_step, options.stop_step
        )
        self.book = LeaseBook(CHUNK, pace)
        self.pool = Pool(self.book, min_candidates=CHUNK, chunks_per_step=options.chunks_per_step, exact=options.exact)
        self.terms = Terms(
            "", GENERATION, 0, 100, 2, CHUNK, ("mms",), True, "reference", None, {}, (2,), "float32", (),
            leases_per_scorer=options.leases_per_scorer,
        )  # fmt: skip
        publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=1)
        self.sessions = Sessions(self.terms, self.pool, publisher, self.deliver, collections.Counter())
        self.scorers: dict[bytes, Scorer] = {}
        self.num_joined = 0
        self.completed = 0
        self.prepared: dict[int, list[ScoredChunk]] = {}
        self.used: list[ScoredChunk] = []
        self.staleness: list[int] = []
        self.push(0)
        for _ in range(options.scorers):
            self.join()

    # -- what travels -------------------------------------------------------------------------------------------------

    def deliver(self, peer: bytes, message: Message, channel: Channel) -> bool:
        scorer = self.scorers.get(peer)
        if scorer is None:
            return False
        if isinstance(message, Lease):
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
        self.sessions.issue_leases()
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
        chunk = ScoredChunk(lease.start, lease.stop, Version(GENERATION, scorer.resident), torch.zeros(CHUNK))
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
        dropped = self.book.account.dropped
        chunks = self.pool.take(step) if self.selects(step) else []
        if self.selects(step) and not chunks:
            return self.book.account.dropped > dropped
        self.staleness += [step - chunk.version.step for chunk in chunks]
        self.used += chunks
        self.prepared[step] = chunks
        return True

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


@st.composite
def any_options(draw: st.DrawFn) -> Options:
    push_every = draw(st.integers(1, 9))
    steps = draw(st.integers(1, 40))
    first_step = draw(st.integers(0, steps))
    return Options(
        steps=steps,
        chunks_per_step=draw(st.integers(1, 5)),
        exact=draw(st.booleans()),
        push_every=push_every,
        max_staleness=push_every - 1 + draw(st.integers(0, 12)),
        leases_per_scorer=draw(st.integers(1, 4)),
        scorers=draw(st.integers(1, 3)),
        first_step=first_step,
        stop_step=draw(st.integers(first_step, steps)),
        deaths=draw(st.integers(0, 6)),
        seed=draw(st.integers(0, 2**32)),
    )


@settings(max_examples=200, deadline=None)
@given(any_options())
def test_waiting_never_deadlocks_and_every_promise_about_chunks_holds(options: Options) -> None:
    simulation = Simulation(options)
    simulation.run()
    starts = [chunk.start for chunk in simulation.used]
    account = simulation.pool.account()
    assert len(set(starts)) == len(starts) == account["consumed"], "no chunk is consumed twice"
    assert all(0 <= staleness <= options.max_staleness for staleness in simulation.staleness)
    if options.exact:
        assert len(starts) == options.chunks_per_step * (options.stop_step - options.first_step)
    if options.stop_step < options.steps:
        assert account["outstanding"] == 0


@pytest.mark.parametrize("chunks_per_step", [1, 3])
def test_lockstep_uses_every_chunk_in_order_with_the_weights_of_its_own_step(chunks_per_step: int) -> None:
    options = Options(
        steps=30, chunks_per_step=chunks_per_step, exact=True, push_every=1, max_staleness=0, leases_per_scorer=2,
        scorers=1, first_step=3, stop_step=27, deaths=3, seed=5,
    )  # fmt: skip
    simulation = Simulation(options)
    simulation.run()
    assert [chunk.start for chunk in simulation.used] == [CHUNK * index for index in range(24 * chunks_per_step)]
    assert set(simulation.staleness) == {0}


def test_without_deaths_pacing_alone_keeps_almost_every_chunk_fresh_enough() -> None:
    dropped = consumed = 0
    for seed in range(20):
        options = Options(
            steps=200, chunks_per_step=3, exact=True, push_every=8, max_staleness=16, leases_per_scorer=2,
            scorers=2, first_step=0, stop_step=200, deaths=0, seed=seed,
        )  # fmt: skip
        simulation = Simulation(options)
        simulation.run()
        dropped += simulation.pool.account()["dropped"]
        consumed += simulation.pool.account()["consumed"]
    assert dropped <= 0.01 * consumed, f"dropping is an alarm and not a control: {dropped} of {consumed}"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_account_balances_under_any_sequence_of_calls(data: st.DataObject) -> None:
    """Issue, answer, expire, take, drop and finish in any order, with wrong answers among them."""
    cps = data.draw(st.integers(1, 3))
    book = LeaseBook(CHUNK, Pace(cps, 3, 1, 0, 10**6))
    pool = Pool(book, min_candidates=CHUNK, chunks_per_step=cps, exact=data.draw(st.booleans()))
    pool.announce(Version(GENERATION, 0))
    step, taken, issued = 0, [], []
    for call in data.draw(st.lists(st.sampled_from("iiiaaaewtts"), max_size=60)):
        if call == "i":
            held = pool.issue(data.draw(st.integers(1, 2)), credits=data.draw(st.integers(0, 6)))
            issued += [held] if held is not None else []
        elif call in "aw" and issued:
            held = data.draw(st.sampled_from(issued))
            session = held.session if call == "a" else held.session + 1
            chunk = ScoredChunk(held.start, held.stop, Version(GENERATION, held.oldest_step), torch.zeros(CHUNK))
            current = pool.lease(session, held.lease) is not None
            assert pool.put(session, held.lease, chunk) == current
        elif call == "e" and issued:
            pool.expire([held.lease for held in data.draw(st.lists(st.sampled_from(issued), max_size=3))])
        elif call == "t":
            taken += pool.take(step)
        elif call == "s":
            step += data.draw(st.integers(1, 4))
            pool.announce(Version(GENERATION, step))
            pool.advance(step)
        account = pool.account()
        assert account.pop("leased") == sum(account.values())
        assert account["outstanding"] == book.account.outstanding()
    starts = [chunk.start for chunk in taken]
    assert len(set(starts)) == len(starts)
    pool.finish()
    account = pool.account()
    assert account["outstanding"] == 0
    assert account.pop("leased") == sum(account.values())
