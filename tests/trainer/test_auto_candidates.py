"""`candidates = "auto"` follows the scorers: what they deliver is used, soon after one joins or leaves.

Lease book, pool and sessions are the real ones; time passes by steps, in each of which every scorer answers one lease.
"""

import pytest

from tests.trainer.simulation import Options, Simulation

MOST = 5  # chunks that a step takes
SOON = 3  # steps


class Run:
    """An `auto` run that trains a step whenever its scorers have each answered a lease."""

    def __init__(self, scorers: int, leases_per_scorer: int = 2) -> None:
        self.simulation = Simulation(
            Options(
                steps=10_000, chunks_per_step=MOST, exact=False, push_every=4, max_staleness=64,
                leases_per_scorer=leases_per_scorer, scorers=scorers, first_step=0, stop_step=10_000, deaths=0, seed=0,
            )
        )  # fmt: skip

    def steps(self, num: int) -> list[int]:
        """Chunks that each of so many steps trains on."""
        simulation, taken = self.simulation, []
        for _ in range(num):
            for scorer in list(simulation.scorers.values()):
                simulation.issue()
                simulation.fetch(scorer)
                simulation.score(scorer)
            simulation.feed()
            taken.append(len(simulation.prepared[simulation.completed]))
            assert simulation.train()
        return taken

    def leave(self) -> None:
        peer, _ = self.simulation.scorers.popitem()
        self.simulation.sessions.end(self.simulation.sessions.get(peer), "left", dead=True)


@pytest.mark.parametrize("leases_per_scorer", [1, 2, 4])
def test_steps_use_what_a_scorer_that_joins_delivers_within_a_few_steps(leases_per_scorer: int) -> None:
    run = Run(1, leases_per_scorer)
    assert run.steps(20)[SOON:] == [1] * (20 - SOON)
    run.simulation.join()
    run.simulation.join()
    assert run.steps(20)[SOON:] == [3] * (20 - SOON)


@pytest.mark.parametrize("leases_per_scorer", [1, 2, 4])
def test_steps_make_do_with_what_is_left_once_a_scorer_leaves(leases_per_scorer: int) -> None:
    run = Run(3, leases_per_scorer)
    assert run.steps(10)[SOON:] == [3] * (10 - SOON)
    run.leave()
    assert run.steps(20)[SOON:] == [2] * (20 - SOON)
    run.leave()
    assert run.steps(20)[SOON:] == [1] * (20 - SOON)


def test_no_step_takes_more_than_the_method_is_designed_for() -> None:
    run = Run(8)
    assert set(run.steps(20)[SOON:]) == {MOST}
    for _ in range(5):
        run.leave()
    assert run.steps(20)[4 * SOON :] == [3] * (20 - 4 * SOON), "once what was scored ahead is used up"
