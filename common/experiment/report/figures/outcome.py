"""Held-out error at the end of every run: a row of dots for each arm."""

from common.experiment.report.figures.canvas import SIZE, sheet, shortened, show_percent, ticks
from common.experiment.report.palette import GRID, INK, PAPER
from common.experiment.report.study import Drawn, Study

ROW_HEIGHT = 46  # points: a name above its dots


def draw(study: Study) -> Drawn | str:
    """Dots, one for each seed, and a stroke at their mean."""
    errors = {
        arm.name: [1 - run.accuracy for run in arm.done if run.accuracy is not None] for arm in study.results.arms
    }
    errors = {name: values for name, values in errors.items() if values}
    if not errors:
        return "No run recorded a held-out accuracy at its end."
    figure, axes = sheet("held-out error at the end", "", plot_height=ROW_HEIGHT * len(errors), left=14)
    for row, (name, values) in enumerate(errors.items()):
        style, y, mean = study.styles[name], -row - 0.25, sum(values) / len(values)
        axes.axhline(y, color=GRID, linewidth=1)
        axes.plot([mean, mean], [y - 0.22, y + 0.22], color=style.colour, linewidth=3, solid_capstyle="butt")
        axes.plot(
            values,
            [y] * len(values),
            color=style.colour,
            marker=style.marker,
            markersize=9,
            linestyle="none",
            markeredgecolor=PAPER,
            markeredgewidth=1,
            alpha=0.85,
        )
        axes.text(
            0, y + 0.3, f"{shortened(name, 26)}\u2002{show_percent(round(mean, 4))}",
            transform=axes.get_yaxis_transform(), fontsize=SIZE, color=INK, va="bottom", ha="left",
        )  # fmt: skip
    axes.set_ylim(-len(errors) + 0.2, 0.55)
    axes.set_yticks([])
    axes.margins(x=0.06)
    ticks(axes, "x", show_percent, num=5)
    means = "; ".join(f"{name} {show_percent(round(sum(values) / len(values), 4))}" for name, values in errors.items())
    return Drawn(
        figure,
        caption="Across: share of held-out samples classified wrongly after the last step. A mark is one seed; the "
        "stroke and the number are the mean.",
        alt=f"Dots of the held-out error of each seed. Means: {means}.",
    )
