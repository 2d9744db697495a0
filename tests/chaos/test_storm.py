"""A short storm of everything at once; `make chaos` has the long one."""

import pytest

from tests.chaos.storm import MOST_POINTS, STEPS_PER_S, compare
from tests.preloaded import Preloaded


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_storm_costs_no_step_no_chunk_and_no_accuracy(preloaded: Preloaded) -> None:
    found = compare(preloaded, first_seed=0, num_runs=3, steps=round(60 * STEPS_PER_S))
    assert sum(found["acts"].values()) >= 10
    assert abs(found["accuracy_difference_points"]) <= MOST_POINTS
