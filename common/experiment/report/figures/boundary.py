"""The decision boundary of data in the plane, and the points selected last; figure 1 of arXiv:1911.06996."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from common.experiment.report.arrays import read_arrays
from common.experiment.report.figures.canvas import LEFT, RIGHT, WIDTH, legend, sheet, show_number, ticks
from common.experiment.report.palette import INK, MUTED, SERIES
from common.experiment.report.study import Drawn, Study

NEEDED = ("x", "y", "predicted", "margin", "points", "labels", "selected", "step")
CROWD = 200  # points above which the ringed ones are drawn smaller


def draw(study: Study) -> Drawn | str:
    """Regions by predicted class, the boundary between them, all points small and the selected ones ringed."""
    for mode in ("stale", "fresh", "uniform"):  # the first arm that selects, and plain training where none does
        for arm in study.arms:
            found = _load(study.records[arm.name][0].folder) if arm.mode == mode else None
            if found is not None:
                return _draw(found, arm.name, study.records[arm.name][0].options.seed)
    return "Only data of two features have a boundary in the plane."


def _load(folder: Path) -> dict[str, np.ndarray] | None:
    found = read_arrays(folder / "boundary.npz")
    return found if found is not None and all(name in found for name in NEEDED) else None


def _draw(found: dict[str, np.ndarray], arm: str, seed: int) -> Drawn:
    x, y, predicted = found["x"], found["y"], found["predicted"]
    width = WIDTH - LEFT - RIGHT
    height = width * float(np.clip((y[-1] - y[0]) / max(x[-1] - x[0], 1e-9), 0.6, 1.2))
    ring = 7.0 if found["selected"].sum() <= CROWD else 4.5
    handles: dict[str, Any] = {
        "not selected": Line2D([0], [0], marker="o", markersize=4, color=MUTED, linestyle="none"),
        "selected": Line2D([0], [0], marker="o", markersize=8, color=INK, markerfacecolor="none", linestyle="none"),
    }
    figure, axes = sheet("second feature", "first feature", plot_height=height, legend_rows=1)
    axes.grid(visible=False)
    for number in range(int(max(predicted.max(), found["labels"].max())) + 1):
        colour = SERIES[1 + number % (len(SERIES) - 1)].light
        inside = (predicted == number).astype(np.float64)
        if inside.any() and not inside.all():
            axes.contourf(x, y, inside, levels=[0.5, 1.5], colors=[colour], alpha=0.16)
            axes.contour(x, y, inside, levels=[0.5], colors=[INK], linewidths=1.2)
        of_class = found["labels"] == number
        rest = found["points"][of_class & ~found["selected"]]
        chosen = found["points"][of_class & found["selected"]]
        axes.plot(rest[:, 0], rest[:, 1], linestyle="none", marker="o", markersize=2.5, color=colour, alpha=0.45,
                  markeredgewidth=0)  # fmt: skip
        axes.plot(chosen[:, 0], chosen[:, 1], linestyle="none", marker="o", markersize=ring, markerfacecolor=colour,
                  markeredgecolor=INK, markeredgewidth=1.2)  # fmt: skip
    ticks(axes, "x", show_number)
    ticks(axes, "y", show_number)
    axes.set_xlim(float(x[0]), float(x[-1]))
    axes.set_ylim(float(y[0]), float(y[-1]))
    legend(figure, handles)
    num, total, step = int(found["selected"].sum()), len(found["points"]), int(found["step"])
    return Drawn(
        figure,
        caption=f"Across and up: the two features. Shades are the classes predicted by the final model of {arm}, seed "
        f"{seed}; points have the colour of their label. Ringed: the {num} of {total:,} points selected last, "
        f"up to step {step:,}.",
        alt=f"Decision regions in the plane with {num} selected points near the boundaries.",
    )
