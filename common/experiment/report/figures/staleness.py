"""How old the scores were when their samples were trained."""

from collections import Counter
from typing import Any

import numpy as np

from common.experiment.report.figures.canvas import handle, legend, legend_rows, sheet, show_number, show_percent, ticks
from common.experiment.report.study import Drawn, Study

MOST_BINS = 24


def draw(study: Study) -> Drawn | str:
    """A histogram for each arm, as outlines over one another."""
    counts: dict[str, Counter[int]] = {}
    for arm in study.arms:
        total: Counter[int] = Counter()
        for record in study.records[arm.name]:
            found = record.summary.get("staleness_counts") or {}
            total.update({int(steps): int(count) for steps, count in found.items()})
        if arm.mode == "stale" and total.total():
            counts[arm.name] = total
    if not counts:
        return "No run trained on samples that a scorer had scored."
    oldest = max(max(total) for total in counts.values())
    width = max(1, -(-(oldest + 1) // MOST_BINS))
    edges = np.arange(0, oldest + width + 1, width)
    figure, axes = sheet("share of selected samples", "staleness, steps", legend_rows=legend_rows(list(counts)))
    drawn: dict[str, Any] = {}
    for name, total in counts.items():
        style = study.styles[name]
        shares, _ = np.histogram(list(total), bins=edges, weights=np.array(list(total.values()), np.float64))
        shares = shares / shares.sum()
        axes.stairs(shares, edges - 0.5, color=style.colour, alpha=0.18, fill=True, linewidth=0)
        axes.stairs(shares, edges - 0.5, color=style.colour, linewidth=1.8, linestyle=style.line)
        top = int(shares.argmax())
        axes.plot(edges[top] + (width - 1) / 2, shares[top], color=style.colour, marker=style.marker, markersize=7)
        drawn[name] = handle(style)
    axes.set_ylim(bottom=0)
    ticks(axes, "y", show_percent)
    ticks(axes, "x", show_number)
    legend(figure, drawn)
    means = "; ".join(
        f"{name} {sum(steps * count for steps, count in total.items()) / total.total():.1f} steps on average"
        for name, total in counts.items()
    )
    in_bins = f" in bins of {width} steps" if width > 1 else ""
    return Drawn(
        figure,
        caption="Across: steps between the weights that scored a sample and the step that trained on it. Up: share of "
        f"the selected samples of the arm, all seeds together{in_bins}; the marker stands at the most frequent.",
        alt=f"Histogram of staleness for each stale arm: {means}.",
    )
