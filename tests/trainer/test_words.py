"""The closing words of a run."""

from typing import Any

import pytest

from trainer.words import closing_words, log_line

WARNING = "this was mostly plain training."


def words(**changes: Any) -> str:
    """Of a stale run of 100 steps, 85 of them to be selected by mms."""
    summary = {
        "model": "small", "data": "digits", "steps": 100, "wall_s": 2.0, "samples_trained": 3200, "accuracy": 0.9,
        "mode": "stale", "method": "mms", "samples_scored": 640, "candidates_per_selected": 3.0,
        "selected_fraction": 0.12, "short_batches": 0, "scores_remembered": 0, "candidates_offered": 640,
        "staleness_max": 5, "staleness_mean": 2.0, "waited_fraction": 0.0, "fallbacks": 75,
        "degraded_steps": 0, "degraded_s": 0.0,
        "steps_by_origin": {"plain": 15, "stale": 10, "fallback": 75}, "agreement": [],
    }  # fmt: skip
    return closing_words(summary | changes)


def test_a_run_whose_scorers_went_away_is_called_mostly_plain_training() -> None:
    assert words().endswith(f"Only 12.0% of the steps that should have selected did: {WARNING}")


@pytest.mark.parametrize(
    "changes",
    [
        {"selected_fraction": 0.5},
        {"selected_fraction": 0.0, "fallbacks": 0},  # nothing but warm-up and annealing
        {"mode": "fresh"},
        {"mode": "stale", "method": "infobatch"},
        {"mode": "uniform"},
    ],
)
def test_a_run_that_did_what_it_was_told_is_not(changes: dict[str, Any]) -> None:
    assert WARNING not in words(**changes)


def test_a_run_without_any_score_was_plain_training_altogether() -> None:
    text = words(samples_scored=0, selected_fraction=0.0)
    assert "No scorer ever delivered: this was plain training." in text
    assert WARNING not in text


def test_a_run_that_had_no_scorer_for_a_while_says_for_how_long() -> None:
    assert "DEGRADED" not in words()
    text = words(degraded_steps=60, degraded_s=1.52)
    assert "For 1.5 s the run was DEGRADED: 60 of these steps fell back while no scorer served." in text


def test_the_log_line_of_a_degraded_step_begins_with_it() -> None:
    figures = {"loss/plain": 0.5, "scorers": 0.0}
    assert log_line(50, 100, figures | {"degraded": 1.0}, None).startswith("step 50/100 | DEGRADED: no scorer serves |")
    assert "DEGRADED" not in log_line(50, 100, figures | {"degraded": 0.0}, None)


def test_a_precision_that_selects_something_else_than_float32_is_named() -> None:
    def said(kind: str = "precision", overlap: float | None = 0.384, num: int = 7) -> bool:
        found = {"kind": kind, "precision": "int8", "staleness": 0, "overlap": overlap, "num": num}
        return "Scores in int8 selected only 38% of what float32" in words(agreement=[found])

    assert said()
    assert not any((said(kind="staleness"), said(overlap=0.9), said(overlap=None), said(num=4)))
