"""What is said about figures: gains, losses, differences within the spread, and nothing that they do not show."""

import pytest

from common.experiment.compare.verdict import points, times, verdict_of
from common.experiment.results import RunResult
from tests.common.experiment.compare.arms import arm, ratio, reached, results

PLAIN = arm("uniform", [0.90, 0.92], train_s=10.0)  # a standard deviation of 1.41 points


def test_a_slower_arm_whose_accuracy_is_within_the_spread_gains_nothing() -> None:
    stale = arm("stale:8", [0.91, 0.93], ratio_to_plain=ratio(train=1.9, flops=2.1, accuracy_points=1.0))
    (sentence,) = verdict_of(results(PLAIN, stale))
    assert sentence == (
        "stale:8 takes 1.90 times the training time and 2.10 times the compute of uniform and ends 1.00 points higher "
        "in held-out accuracy, within the seeds' spread of 1.41: it gains nothing here."
    )


@pytest.mark.parametrize(
    ("taken", "gains"),
    [
        ({"train": 1.9, "accuracy_points": 2.0}, True),  # more accurate, beyond the spread
        ({"train": 0.7, "accuracy_points": -1.0}, True),  # faster, as accurate
        ({"train": 0.7, "accuracy_points": -2.0}, False),  # faster, but worse beyond the spread
        ({"train": 0.97, "accuracy_points": 0.0}, False),  # as fast, as accurate
        ({"flops": 0.5, "accuracy_points": 0.0}, True),  # no seconds taken: compute stands in
        ({"train": 1.2, "flops": 0.5, "accuracy_points": 0.0}, False),
    ],
)
def test_gains_are_accuracy_beyond_the_spread_or_time(taken: dict[str, float], gains: bool) -> None:
    stale = arm("stale:8", [0.90, 0.92], ratio_to_plain=ratio(**taken))
    assert ("gains nothing" not in verdict_of(results(PLAIN, stale))[0]) == gains


def test_of_a_single_seed_nothing_is_concluded() -> None:
    stale = arm("stale:8", [0.99], ratio_to_plain=ratio(train=1.9, accuracy_points=8.0))
    (sentence,) = verdict_of(results(PLAIN, stale))
    assert sentence.endswith("(a single seed: nothing is known of the spread).")


def test_a_target_that_is_reached_earlier_is_a_gain() -> None:
    stale = arm(
        "stale:8",
        [0.90, 0.92],
        ratio_to_plain=ratio(train=1.5, accuracy_points=0.0),
        reached=[reached(0.9, 2, 2, train_ratio=0.8, flops_ratio=1.25), reached(0.91, 2, 2, train_ratio=0.9)],
    )
    first, second = verdict_of(results(PLAIN, stale))
    assert "gains nothing" not in first
    assert second == (
        "stale:8 needs, against uniform, for 90% 0.80 times the training time and 1.25 times the compute; "
        "for 91% 0.90 times the training time."
    )


def test_a_target_that_was_not_reached_is_said_plainly() -> None:
    plain = arm("uniform", [0.90, 0.92], reached=[reached(0.975, 2, 0)])
    stale = arm("stale:8", [0.90, 0.92], reached=[reached(0.975, 2, 1)])
    assert verdict_of(results(plain, stale)) == [
        "uniform: 97.5% not reached by any of its runs.",
        "stale:8: 97.5% not reached by 1 of its 2 runs.",
    ]


def test_stale_is_set_against_the_fastest_fresh_arm_on_as_many_cores() -> None:
    fresh = arm("fresh", [0.95, 0.95], train_s=40.0)
    faster = arm("fresh:threads=2", [0.95, 0.95], train_s=30.0, cores=2)
    another = arm("fresh:method=loss", [0.95, 0.95], train_s=1.0, method="loss")
    stale = arm("stale:8", [0.95, 0.95], train_s=15.0, cores=2)
    (sentence,) = verdict_of(results(PLAIN, fresh, faster, another, stale))
    assert sentence == (
        "Against fresh selection (fresh:threads=2), stale:8 takes 0.50 times the training time and ends with the same "
        "held-out accuracy, within the seeds' spread of 0.00."
    )


def test_an_unclean_arm_and_failed_runs_are_named() -> None:
    stale = arm("stale:8", [0.9], fallback_fraction=0.12, is_clean=False)
    failed = RunResult(seed=1, folder="x", status="failed", error="out of memory")
    stale = stale.model_copy(update={"runs": [*stale.runs, failed]})
    assert verdict_of(results(PLAIN, stale)) == [
        "stale:8: 1 of 2 runs failed: out of memory",
        "stale:8 is not a clean comparison: 12% of its selecting steps fell back for want of scored candidates.",
    ]


def test_without_a_plain_arm_nothing_is_said_of_gains() -> None:
    assert verdict_of(results(arm("fresh", [0.9]))) == [
        "Without a plain arm (uniform) nothing can be said about what selection gains."
    ]


def test_differences_are_called_what_they_are() -> None:
    assert points(-2.0, 1.0) == "2.00 points lower in held-out accuracy, beyond the seeds' spread of 1.00"
    assert points(0.001, 0.5) == "with the same held-out accuracy, within the seeds' spread of 0.50"
    assert points(None, 0.5) == "with an unknown accuracy"
    assert (times(1.9), times(12.34)) == ("1.90 times", "12.3 times")
