"""When the trainer waited for scored candidates, and when it went on without them."""

import numpy as np

from common.experiment.records import RunRecord
from common.experiment.report.curves import Line, line, per_window
from common.experiment.report.figures.canvas import band_figure
from common.experiment.report.study import Drawn, Study

WINDOWS = 12


def waiting(study: Study) -> Drawn | str:
    """The share of the time that was waiting, window by window."""
    if study.results.side_by_side:
        return "Runs ran side by side, so the time they waited says nothing about one another."
    bands = study.bands(_waited)
    if not bands:
        return "No run recorded how long it waited."
    figure = band_figure(bands, study.styles, y_label="time waited", x_label="optimiser steps", percent=True)
    return Drawn(
        figure,
        caption="Across: optimiser steps. Up: share of the time in which the trainer stood still for its next batch. "
        f"{study.band_words}",
        alt="Share of the time that the trainer waited against steps, a line for each arm.",
    )


def fallbacks(study: Study) -> Drawn | str:
    """The share of steps that fell back, window by window."""
    stale = {arm.name for arm in study.arms if arm.mode == "stale"}
    bands = {name: shown for name, shown in study.bands(_fallen_back).items() if name in stale}
    if not bands:
        return "Only stale runs fall back, and none recorded it."
    figure = band_figure(bands, study.styles, y_label="steps that fell back", x_label="optimiser steps", percent=True)
    return Drawn(
        figure,
        caption="Across: optimiser steps. Up: share of the steps for which too few scored candidates were ready. An "
        f"arm above 5 % is not a clean comparison. {study.band_words}",
        alt="Share of steps that fell back against steps, a line for each stale arm.",
    )


def _waited(record: RunRecord) -> Line:
    """Cumulative shares become seconds waited, and those shares of each window; x is in steps."""
    share = line(record.metrics, "step", "time/waited_fraction")
    since = line(record.metrics, "step", "wall_s")
    trained = line(record.metrics, "step", "train_s")
    if len(share) < 2 or not len(trained):
        return Line(np.empty(0), np.empty(0))
    started = np.interp(trained.x[0], since.x, since.y) - trained.y[0]  # the first step, on the clock of wall_s
    elapsed = np.maximum(np.interp(share.x, since.x, since.y) - started, 0)
    waited, spent = per_window(share.x, share.y * elapsed, WINDOWS), per_window(share.x, elapsed, WINDOWS)
    return Line(waited.x, np.clip(waited.y / np.maximum(spent.y, 1e-12), 0, 1))


def _fallen_back(record: RunRecord) -> Line:
    total = line(record.metrics, "step", "selection/fallbacks")
    return per_window(total.x, total.y, WINDOWS)
