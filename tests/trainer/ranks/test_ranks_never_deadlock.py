"""Ranks that wait for scores never wait for each other for ever: simulated runs of any allowed options."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from common.protocol import Version
from tests.trainer.chunks import GENERATION
from tests.trainer.simulation import Options, Simulation
from tests.trainer.test_no_deadlock import any_options, check_promises
from trainer.ranks.following import FollowedVersions


class Ranks:
    """As one rank is simulated, each with its own pool and leases: all of them make a step, rank 0 has the weights.

    Scorer n serves every rank, with one version.
    """

    def __init__(self, options: Options, size: int) -> None:
        self.options = replace(options, deaths=0)
        self.rng = random.Random(options.seed)
        self.ranks = [Simulation(replace(self.options, seed=options.seed + rank)) for rank in range(size)]
        self.versions = [FollowedVersions(GENERATION, rank.pool) for rank in self.ranks]
        self.scorers = [list(rank.scorers.values()) for rank in self.ranks]
        self.completed = 0

    def fetch(self, number: int) -> bool:
        newest = self.ranks[0].pool.announced.step
        moved = self.scorers[0][number].resident != newest
        for scorers in self.scorers:
            scorers[number].resident = newest
        return moved

    def score(self, rank: int, number: int) -> bool:
        scorer = self.scorers[rank][number]
        if not self.ranks[rank].score(scorer):
            return False
        assert Version(GENERATION, scorer.resident) in self.versions[rank], "an honest answer was refused"
        return True

    def train(self) -> bool:
        """A step, if every rank has its batch; those that have none push, or note it, as `trainer.waits` does."""
        step, bound = self.completed, self.completed - self.options.max_staleness
        waiting = [rank for rank in self.ranks if step not in rank.prepared]
        stale = [rank for rank in waiting if rank.selects(step) and rank.pool.announced.step < bound]
        if waiting:
            for rank in stale:
                rank.push(step)
            return bool(stale)
        self.completed += 1
        is_due = self.completed < self.options.stop_step and self.completed % self.options.push_every == 0
        for rank in self.ranks:
            rank.completed = self.completed
            if is_due:
                rank.push(self.completed)
        return True

    def run(self) -> None:
        while self.completed < self.options.steps:
            acts = [self.train, *(rank.feed for rank in self.ranks), *(rank.issue for rank in self.ranks)]
            for number in range(self.options.scorers):
                acts.append(lambda number=number: self.fetch(number))
                acts += [lambda one=one, number=number: self.score(one, number) for one in range(len(self.ranks))]
            self.rng.shuffle(acts)
            happened = [act() for act in acts if self.rng.random() < 0.7]
            if not any(happened):
                assert any([act() for act in acts]), f"deadlock before step {self.completed}"  # noqa: C419
            for rank in self.ranks:
                rank.check()


@settings(max_examples=60, deadline=None)
@given(any_options(), st.integers(2, 4), st.sampled_from(["pool", "stream"]))
def test_ranks_never_deadlock_and_no_version_is_taken_for_one_that_cannot_be(
    options: Options, size: int, kind: str
) -> None:
    simulation = Ranks(replace(options, kind=kind), size)
    simulation.run()
    for rank in simulation.ranks:
        check_promises(rank)
