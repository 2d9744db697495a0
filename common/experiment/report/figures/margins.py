"""How close to a boundary the selected samples are, over training; figure 3 of arXiv:1911.06996."""

from common.experiment.report.curves import line, smoothed
from common.experiment.report.figures.canvas import band_figure
from common.experiment.report.study import Drawn, Study

WINDOWS = 40


def draw(study: Study) -> Drawn | str:
    """The mean of the ten smallest margins of each selected batch."""
    bands = study.bands(lambda record: smoothed(line(record.metrics, "step", "selection/mean_margin"), WINDOWS))
    if not bands:
        return "No run selected by a method that computes margins."
    figure = band_figure(bands, study.styles, y_label="margin", x_label="optimiser steps", log=True)
    return Drawn(
        figure,
        caption="Across: optimiser steps. Up: mean of the ten smallest margins of a selected batch, that is, distances "
        f"to the boundary between the two likeliest classes. Small is hard. {study.band_words}",
        alt="Mean of the ten smallest margins selected against steps, a line for each arm.",
    )
