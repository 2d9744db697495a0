"""The paragraph that a report opens with."""

import pytest

from common.experiment.report.lead import lead
from common.experiment.results import Ratio, Spread


def arm_of(made, name, accuracies, **figures):
    (arm,) = [arm for arm in made[0].arms if arm.name == name]
    return arm.model_copy(update={"accuracy": Spread.of(accuracies), "is_clean": True, "reached": [], **figures})


@pytest.fixture
def study(made):
    def build(fresh_points, **figures):
        fresh = 0.9 + fresh_points / 100
        ratio = Ratio(plain="uniform", train=2.0, flops=2.0, accuracy_points=fresh_points)
        arms = [
            arm_of(made, "uniform", [0.9, 0.9, 0.9]),
            arm_of(made, "fresh", [fresh] * 3, ratio_to_plain=ratio),
            arm_of(made, "stale:8", [0.88] * 3, ratio_to_plain=ratio.model_copy(update={"accuracy_points": -2.0})),
        ]
        arms[2] = arms[2].model_copy(update=figures)
        return made[0].model_copy(update={"arms": arms, "verdict": ["One.", "Two.", "Three.", "Four."]})

    return build


def test_arms_that_gain_and_those_that_do_not_are_named(study):
    assert lead(study(1.0)) == (
        "fresh gains something over plain training here; stale:8 gains nothing. "
        "Plain training ends at 90.00\u00a0% held-out accuracy, the best of the others, fresh, at 91.00\u00a0%."
    )


def test_that_nothing_gains_is_said_plainly(study):
    assert lead(study(-1.0)).startswith("No selecting arm gains anything over plain training here. ")


def test_an_unclean_arm_and_lost_runs_are_part_of_it(study, made):
    lost = made[0].arms[0].runs[0].model_copy(update={"status": "failed"})
    text = lead(study(1.0, is_clean=False, runs=[*made[0].arms[0].runs, lost]))
    assert text.endswith("stale:8 fell back too often to be a clean comparison. 1 run did not end in order.")


def test_a_short_verdict_is_the_paragraph(made):
    assert lead(made[0]) == " ".join(made[0].verdict)
