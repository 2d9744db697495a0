"""How far selection by scores of lower precision agrees with selection by scores in float32."""

from typing import Any

from matplotlib.lines import Line2D

from common.experiment.report.figures.agreement import MEASURES
from common.experiment.report.figures.canvas import SIZE, legend, legend_rows, sheet, shortened, ticks
from common.experiment.report.palette import GRID, INK, PAPER
from common.experiment.report.study import Drawn, Study

ROW_HEIGHT = 46  # points: a name above its marks


def draw(study: Study) -> Drawn | str:
    """A row for each arm and precision, a mark for each measure."""
    found = _means(study)
    if not found:
        return "No run audited scores of lower precision against float32."
    marks = {label: _mark(number) for number, label in enumerate(MEASURES.values())}
    figure, axes = sheet(
        "agreement with float32", "", plot_height=ROW_HEIGHT * len(found), left=14, legend_rows=legend_rows(list(marks))
    )
    for row, (name, means) in enumerate(found.items()):
        y = -row - 0.25
        axes.axhline(y, color=GRID, linewidth=1)
        shown = ", ".join(f"{mean:.3f}" for mean in means.values())
        axes.text(0, y + 0.28, f"{shortened(name, 24)}\u2002{shown}", transform=axes.get_yaxis_transform(),
                  fontsize=SIZE, color=INK, va="bottom", ha="left")  # fmt: skip
        for measure, mean in means.items():
            mark = marks[MEASURES[measure]]
            axes.plot([mean], [y], marker=mark.get_marker(), markersize=10, linestyle="none", color=INK,
                      markerfacecolor=mark.get_markerfacecolor(), markeredgecolor=INK)  # fmt: skip
    axes.set_ylim(-len(found) + 0.2, 0.55)
    axes.set_yticks([])
    lowest = min(mean for means in found.values() for mean in means.values())
    axes.set_xlim(min(0.9, lowest - 0.05), 1.01)
    ticks(axes, "x", lambda value: f"{value:g}")
    legend(figure, marks)
    words = "; ".join(
        f"{name}: " + ", ".join(f"{MEASURES[measure]} {mean:.3f}" for measure, mean in means.items())
        for name, means in found.items()
    )
    return Drawn(
        figure,
        caption="Across: agreement of the scorer's precision with float32 at the same weights; 1 is the same "
        "selection, the same order. Marks are means over the audited chunks of all seeds.",
        alt=f"Agreement of scorer precisions with float32. {words}.",
    )


def _means(study: Study) -> dict[str, dict[str, float]]:
    """By arm and precision: the mean of each measure."""
    found: dict[str, dict[str, list[float]]] = {}
    for arm in study.arms:
        rows: list[dict[str, Any]] = [row for record in study.records[arm.name] for row in record.agreement]
        for row in rows:
            if row.get("kind") == "precision":
                for measure in MEASURES:
                    if row.get(measure) is not None:
                        values = found.setdefault(f"{arm.name}, {row.get('precision')}", {})
                        values.setdefault(measure, []).append(float(row[measure]))
    return {
        name: {measure: sum(values) / len(values) for measure, values in measures.items()}
        for name, measures in found.items()
    }


def _mark(number: int) -> Line2D:
    face = INK if number == 0 else PAPER
    return Line2D(
        [0], [0], linestyle="none", marker="oD"[number], markersize=9, color=INK, markerfacecolor=face,
        markeredgecolor=INK,
    )  # fmt: skip
