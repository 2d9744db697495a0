"""How far selection by old scores agrees with selection by the trainer's current weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.experiment.report.curves import Band
from common.experiment.report.figures.canvas import band_figure, show_number, ticks
from common.experiment.report.study import Drawn, Study

MEASURES = {"overlap": "overlap of the selected", "rank_correlation": "rank correlation"}
MEANING = {
    "overlap": "share of the selected samples that the trainer's current weights would have selected too",
    "rank_correlation": "Spearman's correlation of the scores with those of the current weights; 1 is the same order",
}
MOST_POINTS = 12


def overlap_with_staleness(study: Study) -> Drawn | str:
    """Overlap of the selected against staleness."""
    return _against_staleness(study, "overlap")


def correlation_with_staleness(study: Study) -> Drawn | str:
    """Spearman's rank correlation against staleness."""
    return _against_staleness(study, "rank_correlation")


def _against_staleness(study: Study, measure: str) -> Drawn | str:
    bands: dict[str, Band] = {}
    for arm in study.arms:
        shared = by_staleness([record.agreement for record in study.records[arm.name]], measure)
        if shared is not None:
            bands[arm.name] = shared
    if not bands:
        return "No run audited its scores against current weights."
    figure = band_figure(bands, study.styles, y_label=MEASURES[measure], x_label="staleness, steps")
    axes = figure.axes[0]
    lowest = min(float(shown.low.min()) for shown in bands.values())
    axes.set_ylim(min(0.0, lowest * 1.1) if measure == "rank_correlation" else 0, 1.04)
    axes.set_xlim(left=-0.02 * max(float(shown.x[-1]) for shown in bands.values()) - 0.2)
    ticks(axes, "y", lambda value: f"{value:g}", num=5)
    ends = "; ".join(
        f"{name} {shown.mean[0]:.2f} at {show_number(round(float(shown.x[0]), 1))} steps, {shown.mean[-1]:.2f} at "
        f"{show_number(round(float(shown.x[-1]), 1))}"
        for name, shown in bands.items()
    )
    return Drawn(
        figure,
        caption=f"Across: age of the scores, in steps. Up: {MEANING[measure]}. {study.band_words}",
        alt=f"{MEASURES[measure].capitalize()} against staleness, a line for each arm. {ends}.",
    )


def by_staleness(runs: Sequence[Sequence[Mapping[str, Any]]], measure: str) -> Band | None:
    """A measure by staleness: the mean over all audits, and the lowest and the highest of the runs' own means.

    Args:
        runs: rows of agreement.jsonl, for each run.

    Returns:
        A point for each staleness seen; where there are many, for each bin of equal width, at its middle. None without
        audits.
    """
    audits = [
        (run, int(row["staleness"]), float(row[measure]))
        for run, rows in enumerate(runs)
        for row in rows
        if row.get("kind") == "staleness" and row.get(measure) is not None
    ]
    if not audits:
        return None
    width = max(1, -(-(max(steps for _, steps, _ in audits) + 1) // MOST_POINTS))
    bins: dict[int, dict[int, list[float]]] = {}
    for run, steps, value in sorted(audits):
        bins.setdefault(steps // width, {}).setdefault(run, []).append(value)
    places = sorted(bins)
    low, mean, high = (np.empty(len(places)) for _ in range(3))
    for index, place in enumerate(places):
        means = [float(np.mean(values)) for values in bins[place].values()]
        low[index], high[index] = min(means), max(means)
        mean[index] = np.clip(np.mean(np.concatenate(list(bins[place].values()))), low[index], high[index])
    x = np.array(places, np.float64) * width + (width - 1) / 2
    return Band(x, mean, low, high, len({run for run, _, _ in audits}))
