"""Steps that a budget pays for, from what a pilot recorded."""

from pathlib import Path
from typing import Any

import pytest

from common.config import RunOptions, load_options
from common.config.compare import CompareFlags
from common.errors import ConfigError
from common.experiment.compare.arms import read_arms
from common.experiment.compare.budget import affordable_steps, budget_of, check_budget
from common.experiment.records import RunRecord
from common.experiment.results import Budget
from tests.common.experiment.planted import plant

SECONDS, FLOPS = Budget(kind="seconds", amount=10.0), Budget(kind="flops", amount=48_000.0)


@pytest.fixture
def pilot(tmp_path: Path) -> RunRecord:
    """100 steps of 8 samples: 1/32 s each after a first one of 3 s; 30 + 10 operations for each sample."""
    rows = [{"step": 1, "wall_s": 4.0, "train_s": 3.0}, {"step": 100, "wall_s": 7.0, "train_s": 3.0 + 99 / 32}]
    return plant(tmp_path, RunOptions(steps=100, batch_size=8, mode="fresh"), metrics=rows)


def test_seconds_pay_for_steps_without_the_first_one_that_warms_up(pilot: RunRecord) -> None:
    assert affordable_steps(SECONDS, pilot) == 320


def test_operations_pay_for_training_and_scoring(pilot: RunRecord) -> None:
    assert affordable_steps(FLOPS, pilot) == 48_000 // (8 * 40)


def test_at_least_one_step_is_made(pilot: RunRecord) -> None:
    assert affordable_steps(Budget(kind="flops", amount=1.0), pilot) == 1


def test_a_pilot_without_the_figure_is_refused(tmp_path: Path) -> None:
    silent = plant(tmp_path, RunOptions(steps=100), metrics=[], flops=None)
    for budget in (SECONDS, FLOPS):
        with pytest.raises(ConfigError, match=f"did not record {budget.kind}"):
            affordable_steps(budget, silent)


def test_the_budget_is_what_was_given() -> None:
    assert budget_of(load_options(CompareFlags, []), 300) == Budget(kind="steps", amount=300)
    assert budget_of(load_options(CompareFlags, ["--budget-s", "10"]), 300) == SECONDS
    assert budget_of(load_options(CompareFlags, ["--budget-flops", "48e3"]), 300) == FLOPS


@pytest.mark.parametrize(
    ("given", "word", "message"),
    [
        ({}, "fresh:steps=9", "arm fresh:steps=9: --budget-s decides how many steps an arm gets"),
        (
            {"schedule": {"name": "step", "milestones": (50, 75)}},
            "fresh",
            "--schedule.milestones 50 75 counts steps; use --schedule.milestone-shares",
        ),
    ],
)
def test_options_that_count_steps_contradict_a_budget_in_seconds(
    given: dict[str, Any], word: str, message: str
) -> None:
    arms = read_arms([word], given)
    with pytest.raises(ConfigError, match=message):
        check_budget(SECONDS, arms)
    check_budget(Budget(kind="steps", amount=50), arms)


def test_milestones_as_shares_go_with_every_budget() -> None:
    given = {"schedule": {"name": "step", "milestone_shares": (0.5, 0.75)}}
    check_budget(SECONDS, read_arms(["fresh"], given))
