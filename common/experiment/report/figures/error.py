"""Held-out error against what was spent: steps, seconds, samples, compute."""

from collections.abc import Sequence

from common.experiment.records import RunRecord
from common.experiment.report.curves import Band, Line, line
from common.experiment.report.figures.canvas import band_figure, show_percent, unit_of
from common.experiment.report.study import Drawn, Study

VISIBLE = 1.02  # ratio of lengths from which a difference can be seen


def against_steps(study: Study) -> Drawn | str:
    """The error at equal numbers of updates."""
    return _draw(study, ["step"], "optimiser steps", "optimiser steps")


def against_seconds(study: Study) -> Drawn | str:
    """The error at equal time."""
    if study.results.side_by_side:
        return "Runs ran side by side, so their seconds say nothing about one another."
    return _draw(study, ["train_s"], "seconds of training", "seconds since the first step, without evaluations")


def against_samples(study: Study) -> Drawn | str:
    """The error at equal numbers of back-propagated samples."""
    return _draw(study, ["samples_trained"], "samples trained", "samples back-propagated")


def against_compute(study: Study) -> Drawn | str:
    """The error at equal compute, scoring included."""
    tags = ["flops_training", "flops_scoring"]
    largest = max((curve.x[-1] for curve in _bands(study, tags).values()), default=0.0)
    factor, prefix = unit_of(largest)
    return _draw(
        study, tags, f"compute, {prefix}FLOP", "compute of training and scoring, without audits", factor=factor
    )


def _draw(study: Study, tags: Sequence[str], x_label: str, x_words: str, *, factor: float = 1.0) -> Drawn | str:
    bands = _bands(study, tags, factor)
    if not bands:
        missing = " + ".join(tags)
        return f"No run recorded held-out accuracy beside {missing}."
    figure = band_figure(bands, study.styles, y_label="held-out error", x_label=x_label, log=True, percent=True)
    ends = "; ".join(f"{name} ends at {show_percent(round(float(curve.mean[-1]), 4))}" for name, curve in bands.items())
    return Drawn(
        figure,
        caption=f"Across: {x_words}. Up: share of held-out samples classified wrongly. {study.band_words}"
        f"{' A line ends with the shortest run of its arm.' if _lengths_differ(study, tags) else ''}",
        alt=f"Held-out error against {x_label}, a line for each arm. {ends}.",
    )


def _bands(study: Study, tags: Sequence[str], factor: float = 1.0) -> dict[str, Band]:
    return study.bands(lambda record: _error(record, tags, factor))


def _error(record: RunRecord, tags: Sequence[str], factor: float = 1.0) -> Line:
    curve = line(record.metrics, tags, "accuracy/held_out")
    return Line(curve.x / factor, 1 - curve.y)


def _lengths_differ(study: Study, tags: Sequence[str]) -> bool:
    """Whether runs of one arm end in different places, so that the longer ones are not shown to their end."""
    for arm in study.arms:
        ends = [curve.x[-1] for record in study.records[arm.name] if len(curve := _error(record, tags))]
        if ends and max(ends) > VISIBLE * min(ends):
            return True
    return False
