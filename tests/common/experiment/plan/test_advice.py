"""From what was measured to what to run."""

from dataclasses import replace
from typing import Any

import pytest

from common.experiment.plan.advice import Advice, advise, best_chunk, fresh_scoring, num_scorers
from tests.common.experiment.plan.planted import CRUDE, FLOAT32, INT8, measured, options, together


def advice(given: dict[str, Any] | None = None, **changes: Any) -> Advice:
    return advise(options(**(given or {})), measured(**changes))


def test_q_is_the_trainers_pass_over_all_that_a_scorer_does_for_a_candidate() -> None:
    found = advice()
    assert found.q == pytest.approx(100 / (20 + 4 + 1))
    assert found.inequality == pytest.approx(3 * 4)


def test_the_fastest_precision_that_selects_alike_is_taken() -> None:
    assert advice().precision == "int8"
    assert advice(scoring=(FLOAT32, CRUDE)).precision == "float32"
    assert advice({"precision": "bf16"}).precision == "bf16"


def test_candidates_leave_headroom_below_what_both_measured_together_supply() -> None:
    found = advice(together=together(candidates_per_s=24_000))
    assert found.sustained == pytest.approx(24_000 * 10e-3 / 32)  # 7.5
    assert (found.candidates, found.waited_fraction) == (6 * 32, 0.0)
    assert found.options["candidates"] == "192"
    assert found.is_worthwhile


def test_candidates_never_pass_what_the_method_is_designed_for() -> None:
    assert advice(together=together(candidates_per_s=1e6)).candidates == 10 * 32
    assert advice({"method": "gradient-norm"}, together=together(candidates_per_s=1e6)).candidates == 3 * 32


def test_too_many_candidates_are_waited_for() -> None:
    found = advice({"candidates": 320}, together=together(candidates_per_s=16_000))
    assert found.waited_fraction == pytest.approx(0.5)
    assert found.stale_s == pytest.approx(20e-3 + 100e-6 / found.push_every)
    assert "candidates" not in found.options


def test_scorers_that_leave_no_choice_are_said_to_be_too_slow() -> None:
    found = advice(together=together(candidates_per_s=4_000))
    assert (found.candidates, found.is_worthwhile) == (32, False)


def test_speeds_are_over_scoring_in_the_trainer_and_over_plain_training_at_its_best() -> None:
    found = advice(together=together(24_000), push_s=0.0)
    assert found.over_fresh == pytest.approx((10e-3 + 192 * 20e-6 + 1e-3) / 10e-3), "in int8, refreshed each step"
    assert found.break_even == pytest.approx(8 / 10)


@pytest.mark.parametrize(
    ("precision", "scorer_device", "fresh_precision", "scored_s"),
    [
        (None, "cpu", "int8", 192 * 20e-6 + 1e-3),
        ("float32", "cpu", "float32", 192 * 100e-6),
        ("bf16", "cpu", "bf16", 192 * 10e-6 + 1e-3),
        (None, "cuda:0", "float32", 192 * 100e-6),  # how fast the trainer is in int8 is not known
    ],
)
def test_fresh_scoring_is_compared_at_its_best_precision(
    precision: str | None, scorer_device: str, fresh_precision: str, scored_s: float
) -> None:
    found = fresh_scoring(measured(scorer_device=scorer_device), precision, 192)
    assert found == (pytest.approx(scored_s), fresh_precision)


def test_few_candidates_are_not_worth_taking_over_weights_in_a_low_precision() -> None:
    assert fresh_scoring(measured(), None, 8)[1] == "float32"


def test_what_scorers_cost_a_step_counts_as_measured_in_turns() -> None:
    """Both twice as slow in that minute, for whatever reason, and a fifth slower again beside scorers."""
    found = advice(together=together(10_000, step_s=24e-3, alone_s=20e-3), push_s=0.0)
    assert found.stale_s == pytest.approx(12e-3)
    assert found.sustained == pytest.approx(24e-3 * 10_000 / 32)


@pytest.mark.parametrize(("cores", "num"), [(2, 1), (4, 3), (16, 10)])
def test_scorers_are_as_many_as_are_wanted_and_cores_allow(cores: int, num: int) -> None:
    slow = replace(INT8, sample_s=252e-6)  # one supplies 10e-3 / 257e-6 = 39 candidates a step, 1.2 a selected one
    assert num_scorers(measured(cores=cores), slow, wanted=10) == num


def test_a_gpu_gets_one_scorer() -> None:
    assert num_scorers(measured(cores=16, scorer_device="cuda:0"), INT8, wanted=10) == 1


@pytest.mark.parametrize(
    ("push_s", "load_s", "period"), [(0.0, 0.0, 4), (1e-3, 0.0, 16), (0.0, 4e-3, 16), (1.0, 0, 64)]
)
def test_pushes_come_as_often_as_both_sides_can_afford(push_s: float, load_s: float, period: int) -> None:
    found = advice(push_s=push_s, scoring=(FLOAT32, replace(INT8, load_s=load_s)))
    assert found.push_every == period


def test_what_is_given_stays_as_it_is() -> None:
    given = {"scorers": 3, "precision": "bf16", "candidates": 64, "chunk_size": 32, "push_every": 5, "threads": 1}
    found = advice(given)
    assert found.options == {}
    assert (found.scorers, found.precision, found.candidates, found.chunk, found.push_every) == (3, "bf16", 64, 32, 5)


def test_auto_is_not_given() -> None:
    found = advice({"precision": "auto", "candidates": "auto"})
    assert {"precision", "candidates"} <= set(found.options)


@pytest.mark.parametrize(
    ("candidates", "fastest", "chunk"), [(192, 64, 64), (192, 500, 192), (224, 64, 224), (32, 64, 32), (640, 500, 320)]
)
def test_a_chunk_divides_the_candidates_into_whole_batches(candidates: int, fastest: int, chunk: int) -> None:
    assert best_chunk(candidates, 32, fastest) == chunk
    options(candidates=candidates, chunk_size=chunk)
