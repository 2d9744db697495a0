"""The search for the smallest budget, against made-up accuracies."""

import random
from collections.abc import Callable

import pytest

from tests.bench.target.search import Bracket, Grid, Rule, next_run
from tests.bench.target.spread import resampled_budgets, speedup_interval

RULE = Rule(0.99)
GRID = Grid()
Accuracy = Callable[[int, int], float]


def search(accuracy: Accuracy, *, start: int = 20, rule: Rule = RULE) -> tuple[int | None, dict[int, dict[int, float]]]:
    """The place that is found, and all runs that it took."""
    known: dict[int, dict[int, float]] = {}
    while (wanted := next_run(known, rule, GRID, start=start)) is not None:
        place, seed = wanted
        assert seed not in known.get(place, {}), "no run is made twice"
        known.setdefault(place, {})[seed] = accuracy(GRID.steps(place), seed)
    return Bracket.of(known, rule).passing, known


def saturating(steps: int, seed: int) -> float:
    """Reaches .99 at 400 steps but for the seeds' noise, which cancels."""
    return 1 - 4 / steps + 1e-4 * (seed - 1)


@pytest.mark.parametrize("start", [0, 5, 18, 30, 47])
def test_the_smallest_budget_is_found_from_any_start(start: int) -> None:
    place, known = search(saturating, start=start)
    assert place is not None
    assert GRID.steps(place - 1) < 400 <= GRID.steps(place)
    assert len(known[place]) == RULE.num_seeds, "what is found is confirmed with all seeds"


def test_few_seeds_are_spent_on_budgets_far_from_the_target() -> None:
    place, known = search(saturating, start=10)
    assert all(len(seeds) == 1 for tried, seeds in known.items() if place is not None and abs(tried - place) > 2)
    assert sum(map(len, known.values())) <= 9


def test_a_budget_that_one_lucky_seed_reached_is_given_up_by_the_others() -> None:
    def lucky(steps: int, seed: int) -> float:
        return 0.999 if (seed == 0 and steps > 300) else saturating(steps, seed) - 0.0035

    place, known = search(lucky)
    assert place is not None
    assert sum(known[place].values()) / 3 >= RULE.target
    assert any(len(seeds) == 3 for tried, seeds in known.items() if tried < place), "it took seeds to tell"


def test_a_target_out_of_reach_ends_at_the_largest_budget() -> None:
    place, known = search(lambda steps, seed: 0.5)
    assert place is None
    assert max(known) == GRID.last
    assert GRID.steps(GRID.last) <= GRID.last_steps < GRID.steps(GRID.last + 1)


def test_a_target_that_the_smallest_budget_reaches_ends_there() -> None:
    assert search(lambda steps, seed: 1.0)[0] == 0


def test_seeds_stop_once_the_outcome_is_plain() -> None:
    assert RULE.verdict([]) is None
    assert RULE.verdict([0.98]) is False
    assert RULE.verdict([0.995]) is True
    assert RULE.verdict([0.9895]) is None
    assert RULE.verdict([0.9895, 0.9905]) is None
    assert RULE.verdict([0.9895, 0.9905, 0.99]) is True
    assert RULE.verdict([0.9895, 0.9905, 0.9899]) is False


def test_an_interval_holds_the_ratio_and_widens_with_the_seeds_spread() -> None:
    def interval(noise: float) -> tuple[float, float]:
        plain = search(lambda steps, seed: saturating(steps, 1) + noise * (seed - 1))[1]
        third = search(lambda steps, seed: saturating(3 * steps, 1) + noise * (seed - 1))[1]
        generator = random.Random(0)
        budgets = [resampled_budgets(known, RULE, GRID, generator) for known in (plain, third)]
        return speedup_interval(budgets[0], budgets[1], [0.9, 1.0, 1.1], generator)

    low, high = interval(1e-4)
    assert low <= 3.0 <= high
    wide_low, wide_high = interval(2e-3)
    assert wide_high - wide_low > high - low
