"""Which steps select, and the numbers of the summary."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config import TrainerOptions
from trainer.batch import Batch, Origin
from trainer.figures import Figures
from trainer.plan import Plan


def plan(**options: object) -> Plan:
    return Plan.of(TrainerOptions.model_validate(options))


def batch(origin: Origin, num: int = 4, *, staleness: list[int] | None = None, candidates: int = 0) -> Batch:
    ones = torch.ones(num)
    stale = np.array(staleness or [], dtype=np.int64)
    return Batch(ones, ones.long(), ones, np.arange(num), 0, origin, stale, candidates, num_missing=4 - num)


def test_warm_up_and_annealing_are_fractions_of_the_steps() -> None:
    made = plan(steps=200)
    assert made == Plan(200, 10, 180)
    assert [made.selects(step) for step in (0, 9, 10, 179, 180, 199)] == [False, False, True, True, False, False]
    assert made.num_selecting == 170


@pytest.mark.parametrize(("warmup", "anneal", "selecting"), [(0, 0, 7), (1, 0, 0), (0, 1, 0), (0.5, 0.5, 0)])
def test_any_allowed_fractions_give_bounds_in_order(warmup: float, anneal: float, selecting: int) -> None:
    made = plan(steps=7, selection={"warmup_fraction": warmup, "anneal_fraction": anneal})
    assert 0 <= made.first_step <= made.stop_step <= 7
    assert made.num_selecting == selecting == sum(made.selects(step) for step in range(7))


def test_uniform_mode_selects_at_no_step() -> None:
    made = plan(steps=50, mode="uniform", method="uniform")
    assert not any(made.selects(step) for step in range(50))


def test_figures_of_a_run_by_hand() -> None:
    figures = Figures()
    for one, selecting in (
        (batch("plain"), False),
        (batch("stale", staleness=[1, 1, 3, 3], candidates=16), True),
        (batch("stale", 2, staleness=[5, 5], candidates=8), True),
        (batch("reused", staleness=[4, 4, 4, 4]), True),
        (batch("fallback"), True),
    ):
        figures.count(one, selecting=selecting, batch_size=4)
    assert figures.steps == 5
    assert figures.samples_trained == 18
    assert figures.selected_fraction == 3 / 4
    assert figures.candidates_per_selected == 24 / 6
    assert figures.reused_samples == 4
    assert figures.fallbacks == 2
    assert figures.short_batches == 1
    assert figures.staleness_mean == pytest.approx((1 + 1 + 3 + 3 + 5 + 5 + 4 * 4) / 10)
    assert figures.staleness_max == 5
    assert figures.origins == {"plain": 1, "stale": 2, "reused": 1, "fallback": 1}


def test_a_sample_that_was_drawn_twice_is_not_missing() -> None:
    figures = Figures()
    collapsed = replace(batch("stale", 2, staleness=[5, 5], candidates=12), num_missing=0)
    figures.count(collapsed, selecting=True, batch_size=4)
    assert (figures.short_batches, figures.candidates_per_selected, figures.samples_trained) == (0, 3, 2)


def test_figures_of_nothing_are_zero_and_not_an_error() -> None:
    figures = Figures()
    assert (figures.selected_fraction, figures.candidates_per_selected, figures.staleness_mean) == (0, 0, 0)
    assert (figures.staleness_max, figures.fallbacks) == (0, 0)


def test_fresh_batches_are_selected_with_staleness_zero() -> None:
    figures = Figures()
    figures.count(batch("fresh", staleness=[0] * 4, candidates=40), selecting=True, batch_size=4)
    assert (figures.selected_fraction, figures.candidates_per_selected, figures.staleness_mean) == (1, 10, 0)


def test_a_step_is_degraded_if_it_falls_back_while_no_scorer_serves() -> None:
    figures = Figures()
    for one, is_served, is_degraded in (
        (batch("fallback"), True, False),  # they are there, and late
        (batch("stale", staleness=[1] * 4), False, False),  # what they left behind
        (batch("fallback"), False, True),
        (batch("reused", staleness=[1] * 4), False, True),
        (batch("plain"), False, False),
    ):
        figures.count(one, selecting=True, batch_size=4, is_served=lambda served=is_served: served, step_s=0.5)
        assert figures.curves()["degraded"] == is_degraded
    assert (figures.summary()["degraded_steps"], figures.summary()["degraded_s"]) == (2, 1.0)
