"""What a run says to people: its log line and its closing summary in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.selection.registry import METHODS
from trainer.evaluate import Evaluation

MOSTLY = 0.5  # of the steps outside warm-up and annealing
ALIKE = 0.8  # overlap of what is selected in a low precision with what float32 selects
FEW = 5  # audits: below that their mean says little


def log_line(step: int, steps: int, figures: Mapping[str, Any], evaluation: Evaluation | None) -> str:
    """`step 1200/2000 | loss selected 0.431 | staleness 3.7 steps | waited 1.2% | ...`: figures with their units."""
    parts = [f"step {step}/{steps}", *(["DEGRADED: no scorer serves"] if figures.get("degraded") else [])]
    for tag, text in (
        ("loss/selected", "loss of selected {:.3f}"),
        ("loss/plain", "loss of plain {:.3f}"),
        ("loss/uniform", "loss of candidates {:.3f}"),
        ("staleness/mean", "staleness {:.1f} steps"),
        ("selection/candidates_per_selected", "{:.1f} candidates per selected"),
        ("time/waited_fraction", "waited {:.1%}"),
        ("scorers", "{:.0f} scorers"),
    ):
        value = figures.get(tag)
        if value is not None and value == value:
            parts.append(text.format(value))
    if evaluation is not None:
        parts.append(f"held-out accuracy {evaluation.accuracy:.2%}")
    return " | ".join(parts)


def closing_words(summary: Mapping[str, Any]) -> str:
    """The run in a few sentences."""
    trained = f"{summary['steps']} steps in {summary['wall_s']:.1f} s ({summary['samples_trained']} samples)"
    ranks = f" by {len(summary['ranks'])} ranks" if "ranks" in summary else ""
    words = [f"Trained {summary['model']} on {summary['data']}{ranks}: {trained}, {_accuracy(summary['accuracy'])}."]
    if summary["mode"] == "uniform":
        words.append("Plain training: nothing was scored.")
        return " ".join([*words, *_early(summary)])
    if not METHODS[summary["method"]].needs_scorer:
        words.append(
            f"{summary['selected_fraction']:.1%} of the steps outside warm-up and annealing trained on samples chosen "
            f"by {summary['method']}, which scores nothing."
        )
        return " ".join([*words, *_early(summary)])
    where = "by scorers" if summary["mode"] == "stale" else "in the trainer"
    words.append(
        f"{summary['samples_scored']} candidates were scored {where}, {summary['candidates_per_selected']:.1f} for "
        f"each selected sample; {summary['selected_fraction']:.1%} of the steps outside warm-up and annealing "
        f"trained on samples selected by {summary['method']}."
    )
    if summary["short_batches"]:
        words.append(f"{summary['short_batches']} batches were short of samples with a finite score.")
    if summary["scores_remembered"]:
        offered = summary["candidates_offered"]
        words.append(
            f"{summary['scores_remembered']} of {offered} candidates had a remembered loss; "
            f"{1 - summary['scores_remembered'] / offered:.1%} were scored."
        )
    if summary["mode"] == "stale":
        if summary["staleness_max"]:
            words.append(
                f"Their scores were {summary['staleness_mean']:.1f} steps old on average, at most "
                f"{summary['staleness_max']}."
            )
        words.append(
            f"The trainer waited {summary['waited_fraction']:.1%} of the time; "
            f"{summary['fallbacks']} {_steps(summary)} fell back for want of scored candidates"
            f"{_reused(summary)}."
        )
        if summary["degraded_steps"]:
            words.append(
                f"For {summary['degraded_s']:.1f} s the run was DEGRADED: {summary['degraded_steps']} of these "
                f"{_steps(summary)} fell back while no scorer served."
            )
        words += _precisions(summary["agreement"])
        if summary["samples_scored"] == 0:
            words.append("No scorer ever delivered: this was plain training.")
        elif summary["fallbacks"] and summary["selected_fraction"] < MOSTLY:
            words.append(
                f"Only {summary['selected_fraction']:.1%} of the steps that should have selected did: "
                "this was mostly plain training."
            )
    return " ".join([*words, *_early(summary)])


def _precisions(agreement: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning of each precision that selects something else than float32 does with the same weights."""
    return [
        f"Scores in {found['precision']} selected only {found['overlap']:.0%} of what float32 scores select with the "
        f"same weights (mean of {found['num']} audits): consider a finer --precision."
        for found in agreement
        if found["kind"] == "precision" and found["num"] >= FEW
        if found["overlap"] is not None and found["overlap"] < ALIKE
    ]


def _early(summary: Mapping[str, Any]) -> list[str]:
    return ["Stopped early by a signal."] if "stopped_by" in summary else []


def _steps(summary: Mapping[str, Any]) -> str:
    """What fell back is counted in: of several ranks each has a batch of its own in a step."""
    return "batches" if "ranks" in summary else "steps"


def _reused(summary: Mapping[str, Any]) -> str:
    reused = summary["steps_by_origin"].get("reused", 0)
    return f", {reused} of them to the next-best of earlier ones" if reused else ""


def _accuracy(accuracy: float) -> str:
    return f"held-out accuracy {accuracy:.2%}" if math.isfinite(accuracy) else "not evaluated"
