"""Figures show what was planted."""

from dataclasses import replace

import numpy as np
import pytest

from common.experiment.report.figures import (
    PICTURES,
    SECTIONS,
    agreement,
    classes,
    error,
    precision,
    staleness,
    waiting,
)
from common.experiment.report.study import Drawn, Study
from tests.common.experiment.report import planted

ENTRIES = [*(entry for section in SECTIONS for entry in section.entries), PICTURES]


@pytest.fixture(scope="module")
def study(made):
    return Study(*made)


def lines(drawn: Drawn) -> dict[str, tuple[list[float], list[float]]]:
    """Drawn lines with more than one point, by colour."""
    found = drawn.figure.axes[0].get_lines()
    return {each.get_color(): (list(each.get_xdata()), list(each.get_ydata())) for each in found}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_figure_is_drawn_and_says_what_it_shows(study, entry):
    drawn = entry.draw(study)
    assert isinstance(drawn, Drawn), drawn
    assert drawn.alt
    assert entry is PICTURES or ("Across" in drawn.caption and len(drawn.caption) < 330)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_figure_without_data_gives_its_reason(study, entry, tmp_path):
    bare = {
        name: [replace(run, folder=tmp_path, metrics=[], agreement=[], summary={}) for run in runs]
        for name, runs in study.records.items()
    }
    arms = [arm.model_copy(update={"runs": []}) for arm in study.results.arms]
    reason = entry.draw(Study(study.results.model_copy(update={"arms": arms}), bare))
    assert isinstance(reason, str)
    assert reason.endswith(".")


def test_an_arm_has_one_colour_in_every_figure(study):
    colour = study.styles["stale:64"].colour
    for draw in (error.against_steps, error.against_compute, waiting.fallbacks, agreement.overlap_with_staleness):
        assert colour in lines(draw(study))


def test_error_against_compute_counts_training_and_scoring(study):
    x, y = lines(error.against_compute(study))[study.styles["fresh"].colour]
    steps = np.arange(planted.EVERY, planted.STEPS + 1, planted.EVERY)
    a_step = planted.BATCH * (planted.FORWARD + planted.BACKWARD + 10 * planted.FORWARD)
    np.testing.assert_allclose(x, steps * a_step / 1e9)  # in GFLOP
    runs = [[1 - row["accuracy/held_out"] for row in run.metrics if "accuracy/held_out" in row]
            for run in study.records["fresh"]]  # fmt: skip
    np.testing.assert_allclose(y, np.mean(runs, axis=0))


def test_seconds_are_not_drawn_of_runs_side_by_side(study):
    together = Study(study.results.model_copy(update={"side_by_side": True}), study.records)
    assert "side by side" in error.against_seconds(together)
    assert "side by side" in waiting.waiting(together)


def audited(study, rows):
    """The study with these agreement rows in the only run of stale:8."""
    run = replace(study.records["stale:8"][0], agreement=rows)
    return Study(study.results, {"stale:8": [run]})


def row(kind, steps, overlap, correlation, precision="float32"):
    return {"kind": kind, "precision": precision, "staleness": steps, "overlap": overlap,
            "rank_correlation": correlation}  # fmt: skip


def test_agreement_is_the_mean_of_the_audits_of_each_staleness(study):
    rows = [row("staleness", 0, 1.0, 1.0), row("staleness", 4, 0.5, 0.8), row("staleness", 4, 0.7, None)]
    planted_rows = audited(study, [*rows, row("precision", 4, 0.0, 0.0, "bf16")])
    colour = study.styles["stale:8"].colour
    assert lines(agreement.overlap_with_staleness(planted_rows))[colour] == ([0, 4], [1.0, 0.6])
    assert lines(agreement.correlation_with_staleness(planted_rows))[colour] == ([0, 4], [1.0, 0.8])


def test_old_audits_share_points(study):
    rows = [row("staleness", steps, steps / 100, 0.0) for steps in range(60)]
    x, y = lines(agreement.overlap_with_staleness(audited(study, rows)))[study.styles["stale:8"].colour]
    assert x == [2 + 5 * number for number in range(12)]
    np.testing.assert_allclose(y, [place / 100 for place in x])


def test_seeds_whose_audits_hit_different_staleness_all_count():
    runs = [[row("staleness", 2, 0.4, 0), row("staleness", 2, 0.6, 0), row("staleness", 5, 0.2, 0)],
            [row("staleness", 2, 0.8, 0), row("staleness", 9, 0.1, 0)]]  # fmt: skip
    found = agreement.by_staleness(runs, "overlap")
    assert found.x.tolist() == [2, 5, 9]
    np.testing.assert_allclose(found.mean, [0.6, 0.2, 0.1])
    np.testing.assert_allclose(found.low, [0.5, 0.2, 0.1])
    np.testing.assert_allclose(found.high, [0.8, 0.2, 0.1])


def test_curves_that_end_before_a_run_does_say_so(study):
    short = replace(study.records["fresh"][0], metrics=study.records["fresh"][0].metrics[:20])
    both = Study(study.results, {"fresh": [study.records["fresh"][1], short]})
    assert "ends with the shortest run" in error.against_steps(both).caption
    assert "ends with the shortest run" not in error.against_steps(study).caption


def test_precision_is_the_mean_of_its_own_audits(study):
    rows = [row("precision", 0, 0.9, 0.98, "bf16"), row("precision", 3, 0.7, 0.94, "bf16"),
            row("staleness", 3, 0.1, 0.1)]  # fmt: skip
    assert (
        "stale:8, bf16: overlap of the selected 0.800, rank correlation 0.960"
        in precision.draw(audited(study, rows)).alt
    )


def test_staleness_shares_add_up_and_their_mean_is_told(study):
    run = replace(study.records["stale:8"][0], summary={"staleness_counts": {"2": 30, "4": 10}})
    drawn = staleness.draw(Study(study.results, {"stale:8": [run]}))
    heights = drawn.figure.axes[0].patches[0].get_data().values
    np.testing.assert_allclose(heights, [0, 0, 0.75, 0, 0.25])
    assert "stale:8 2.5 steps on average" in drawn.alt


def test_fallbacks_and_waiting_are_those_of_each_window(study):
    rows = [{"step": step, "wall_s": 5 + step / 10, "train_s": step / 10, "selection/fallbacks": count,
             "time/waited_fraction": share}
            for step, count, share in ((10, 0, 0.5), (20, 5, 0.25), (30, 5, 0.5))]  # fmt: skip
    runs = Study(study.results, {"stale:8": [replace(study.records["stale:8"][0], metrics=rows)]})
    colour = study.styles["stale:8"].colour
    assert lines(waiting.fallbacks(runs))[colour] == ([15, 25], [0.5, 0])
    x, y = lines(waiting.waiting(runs))[colour]
    np.testing.assert_allclose(y, [0, 1])  # .5 of 1 s, .25 of 2 s, .5 of 3 s: .5 s, .5 s, 1.5 s waited
    assert x == [15, 25]


def test_class_frequency_is_relative_to_all_candidates(study):
    drawn = classes.draw(study)
    marks = [each for each in drawn.figure.axes[0].get_lines() if each.get_linestyle() == "None"]
    found = sorted({round(float(each.get_xdata()[0]), 6) for each in marks})
    assert found == [0.5, 0.7, 0.8, 2.0]  # 50, 70, 80, 200 of 1000 each, where the mean is 100
