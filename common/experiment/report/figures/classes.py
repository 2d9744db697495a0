"""Which classes are selected more often than their share of the candidates."""

from typing import Any

import numpy as np

from common.experiment.report.curves import Line, band
from common.experiment.report.figures.canvas import (
    SIZE,
    handle,
    legend,
    legend_rows,
    sheet,
    shortened,
    show_number,
    ticks,
)
from common.experiment.report.gallery import Gallery, load_gallery
from common.experiment.report.palette import GRID, INK, MUTED
from common.experiment.report.study import Drawn, Study

MOST_CLASSES = 12
ROW_HEIGHT = 24


def draw(study: Study) -> Drawn | str:
    """A row for each class, a mark for each arm, its range over the seeds as a stroke."""
    names: list[str] = []
    ratios: dict[str, np.ndarray] = {}
    for arm in study.arms:
        galleries = [found for record in study.records[arm.name] if (found := load_gallery(record.folder)) is not None]
        runs = [frequency for gallery in galleries if (frequency := gallery.selection_frequency()) is not None]
        if arm.mode != "uniform" and runs and len({len(run) for run in runs}) == 1:
            ratios[arm.name] = np.stack(runs)
            names = names or _class_names(galleries[0])
    ratios = {name: runs for name, runs in ratios.items() if runs.shape[1] == len(names)}
    if not ratios:
        return "No run recorded how often each class was selected."
    shown = _most_different(ratios)
    figure, axes = sheet(
        "selected / offered, relative to all", "", plot_height=ROW_HEIGHT * len(shown) + 12,
        legend_rows=legend_rows(list(ratios)), left=_room_for([names[number] for number in shown]),
    )  # fmt: skip
    drawn: dict[str, Any] = {}
    axes.axvline(1, color=MUTED, linewidth=1.5)
    for place, (name, runs_RC) in enumerate(ratios.items()):
        style = study.styles[name]
        shift = (place - (len(ratios) - 1) / 2) * 0.6 / max(len(ratios), 1)
        for row, number in enumerate(shown):
            values = runs_RC[:, number][np.isfinite(runs_RC[:, number])]
            if len(values):
                common = band([Line(np.zeros(1), np.array([value])) for value in values])
                assert common is not None, "all runs share the point 0"
                y = -row - shift
                axes.plot([common.low[0], common.high[0]], [y, y], color=style.colour, linewidth=2, alpha=0.5)
                axes.plot(common.mean[0], y, color=style.colour, marker=style.marker, markersize=6, linestyle="none")
        drawn[name] = handle(style)
    axes.set_yticks([-row for row in range(len(shown))], [shortened(names[number], 14) for number in shown])
    axes.tick_params(axis="y", labelsize=SIZE, labelcolor=INK)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_ylim(-len(shown) + 0.4, 0.6)
    axes.margins(x=0.06)
    ticks(axes, "x", lambda value: f"{show_number(value)}×")
    legend(figure, drawn)
    left_out = f" The {len(shown)} of {len(names)} classes that differ most." if len(shown) < len(names) else ""
    return Drawn(
        figure,
        caption="Across: how often candidates of a class were selected, relative to all candidates; 1× is as often as "
        f"they came. Mark: mean of the seeds; stroke: lowest to highest.{left_out}",
        alt="Selection frequency of each class relative to its share of the candidates, a mark for each arm.",
    )


def _class_names(gallery: Gallery) -> list[str]:
    return [gallery.class_name(number) for number in range(len(gallery.class_seen))]


def _most_different(ratios: dict[str, np.ndarray]) -> list[int]:
    """Class numbers, rising: all of them, or those whose mean is furthest from 1 in some arm."""
    means = np.stack([np.nan_to_num(runs, nan=1.0).mean(axis=0) for runs in ratios.values()])
    away = np.abs(np.log(np.maximum(means, 1e-3))).max(axis=0)
    return sorted(np.argsort(-away, kind="stable")[:MOST_CLASSES].tolist())


def _room_for(names: list[str]) -> float:
    """Points of left margin for these labels."""
    longest = max(min(len(name), 14) for name in names)
    return 18 + 8.5 * longest
