"""Training error of what was selected, and of candidates as they come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D

from common.experiment.records import RunRecord
from common.experiment.report.curves import Line, line, mapped, smoothed
from common.experiment.report.figures.canvas import (
    LINE_WIDTH,
    legend,
    legend_rows,
    sheet,
    show_number,
    show_percent,
    ticks,
)
from common.experiment.report.palette import MUTED
from common.experiment.report.study import Drawn, Study

WINDOWS = 30
BAND_ALPHA = 0.12


@dataclass(frozen=True)
class Kind:
    """Whose error, where it is recorded, and the dashes it is drawn with."""

    label: str
    tag: str
    dashes: tuple[float, tuple[float, ...]]


SELECTED = Kind("selected", "accuracy/selected", (0, ()))
UNIFORM = Kind("all candidates", "accuracy/uniform", (0, (1.2, 1.2)))


def draw(study: Study) -> Drawn | str:
    """Selected solid, uniform dotted, in the arm's colour."""
    bands = {kind: study.bands(_error_of(kind.tag)) for kind in (SELECTED, UNIFORM)}
    names = list(bands[SELECTED])
    if not names:
        return "No run selected samples, or none recorded the accuracy on them."
    kinds = {kind.label: Line2D([0], [0], color=MUTED, linestyle=kind.dashes, linewidth=LINE_WIDTH) for kind in bands}
    figure, axes = sheet("training error", "optimiser steps", legend_rows=legend_rows([*names, *kinds]))
    drawn: dict[str, Any] = {}
    for name in names:
        style = study.styles[name]
        for kind, shown in ((kind, found[name]) for kind, found in bands.items() if name in found):
            if shown.num > 1:
                axes.fill_between(shown.x, shown.low, shown.high, color=style.colour, alpha=BAND_ALPHA, linewidth=0)
            axes.plot(
                shown.x, shown.mean, color=style.colour, linestyle=kind.dashes, linewidth=LINE_WIDTH,
                marker=style.marker, markersize=5, markevery=max(len(shown.x) // 6, 1),
            )  # fmt: skip
        drawn[name] = Line2D([0], [0], color=style.colour, linewidth=LINE_WIDTH, marker=style.marker, markersize=6)
    axes.margins(x=0.02)
    axes.set_ylim(bottom=0)
    ticks(axes, "y", show_percent)
    ticks(axes, "x", show_number)
    legend(figure, drawn | kinds)
    return Drawn(
        figure,
        caption="Across: optimiser steps. Up: share of training samples classified wrongly, among the selected (solid) "
        f"and among all candidates (dotted). {study.band_words}",
        alt="Training error of selected samples and of all candidates against steps, two lines for each arm.",
    )


def _error_of(tag: str) -> Callable[[RunRecord], Line]:
    def error(record: RunRecord) -> Line:
        curve = line(record.metrics, "step", tag)
        return smoothed(mapped(curve, 1 - curve.y), WINDOWS)

    return error
