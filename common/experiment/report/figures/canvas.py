"""The sheet that every figure is drawn on: narrow, so that its text stays large on a telephone.

A figure is WIDTH points wide and shown at about as many pixels; nothing on it is smaller than SIZE points.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from common.experiment.report.curves import Band
from common.experiment.report.palette import GRID, INK, MUTED, PAPER, Style

POINTS_PER_INCH = 72
WIDTH, SIZE = 360, 15  # points
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 36, 54
BOTTOM_BARE = 30  # without an x label  # margins in points
LEGEND_ROW = 23
PLOT_HEIGHT = 210
SHORT_NAME, LONGEST_NAME = 14, 34  # characters of a name that leave room for a second column; for one
LINE_WIDTH = 2.0
BAND_ALPHA, CROWDED_ALPHA, CROWD = 0.16, 0.05, 6  # bands of more arms than that lie over one another


def sheet(
    y_label: str, x_label: str, *, legend_rows: int = 0, plot_height: float = PLOT_HEIGHT, left: float = LEFT
) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes; the y label stands level above them."""
    below = (BOTTOM if x_label else BOTTOM_BARE) + legend_rows * LEGEND_ROW
    height = TOP + plot_height + below
    figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH), facecolor=PAPER)
    axes = figure.add_axes((left / WIDTH, below / height, (WIDTH - left - RIGHT) / WIDTH, plot_height / height))
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=SIZE, length=0, pad=6)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    figure.text(6 / WIDTH, 1 - 10 / height, y_label, fontsize=SIZE, color=INK, va="top", ha="left")
    middle = (left + (WIDTH - left - RIGHT) / 2) / WIDTH
    figure.text(middle, (below - BOTTOM + 10) / height, x_label, fontsize=SIZE, color=INK, va="bottom", ha="center")
    return figure, axes


def num_columns(names: Sequence[str]) -> int:
    """Columns of a legend in which these names have room."""
    return 2 if len(names) > 1 and max(map(len, names)) <= SHORT_NAME else 1


def legend_rows(names: Sequence[str]) -> int:
    """Rows that a legend of these names takes."""
    return math.ceil(len(names) / num_columns(names)) if names else 0


def legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """A legend at the foot of the figure: drawn things by name."""
    columns = num_columns(list(handles))
    figure.legend(
        list(handles.values()),
        [shortened(name) for name in handles],
        loc="lower left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=columns,
        fontsize=SIZE,
        labelcolor=INK,
        frameon=False,
        handlelength=2.6,
        handletextpad=0.6,
        columnspacing=1.2,
        borderaxespad=0.2,
        borderpad=0.1,
        labelspacing=0.35,
    )


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """The name in at most so many characters; `$`, which would start a formula, is kept as it is."""
    name = name if len(name) <= longest else name[: longest - 1] + "…"
    return name.replace("$", r"\$")


def band_figure(
    bands: Mapping[str, Band],
    style_of: Mapping[str, Style],
    *,
    y_label: str,
    x_label: str,
    log: bool = False,
    percent: bool = False,
) -> Figure:
    """Mean lines with their bands, one for each arm.

    Args:
        log: logarithmic y where all values are above 0 and differ by more than a factor of 5.
        percent: y is a share, 0 to 1, shown in percent.
    """
    figure, axes = sheet(y_label, x_label, legend_rows=legend_rows(list(bands)))
    handles: dict[str, Any] = {}
    alpha = BAND_ALPHA if len(bands) <= CROWD else CROWDED_ALPHA
    for number, (name, shown) in enumerate(bands.items()):
        style = style_of[name]
        if shown.num > 1:
            axes.fill_between(shown.x, shown.low, shown.high, color=style.colour, alpha=alpha, linewidth=0)
        every = max(len(shown.x) // 6, 1)
        first = (number * every // max(len(bands), 1)) % every  # markers of different arms stand apart
        axes.plot(
            shown.x,
            shown.mean,
            color=style.colour,
            linestyle=style.line,
            linewidth=LINE_WIDTH,
            marker=style.marker,
            markersize=6,
            markevery=(first, every),
        )
        handles[name] = handle(style)
    lowest = min(float(shown.low.min()) for shown in bands.values())
    highest = max(float(shown.high.max()) for shown in bands.values())
    axes.margins(x=0.02, y=0.06)
    if log and lowest > 0 and highest > 5 * lowest:
        log_ticks(axes, lowest, highest, show_percent if percent else show_number)
    else:
        ticks(axes, "y", show_percent if percent else show_number)
        if lowest >= 0 and (percent or lowest < 0.3 * highest):
            axes.set_ylim(bottom=0)
    ticks(axes, "x", show_number)
    legend(figure, handles)
    return figure


def handle(style: Style) -> Line2D:
    """The line of an arm, for a legend."""
    return Line2D(
        [0], [0], color=style.colour, linestyle=style.line, linewidth=LINE_WIDTH, marker=style.marker, markersize=6
    )


def ticks(axes: Axes, which: str, show: Callable[[float], str], num: int = 4) -> None:
    """About `num` ticks on the x or the y axis, at round values."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(num, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


def log_ticks(axes: Axes, lowest: float, highest: float, show: Callable[[float], str]) -> None:
    """A logarithmic y axis with ticks at 1, 2 and 5, or at powers of ten where those would crowd."""
    axes.set_yscale("log")
    powers = range(math.floor(math.log10(lowest)) - 1, math.ceil(math.log10(highest)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        places = [digit * 10.0**power for power in powers for digit in digits]
        inside = [place for place in places if 0.9 * lowest <= place <= 1.1 * highest]
        if len(inside) <= 7:
            break
    axes.yaxis.set_major_locator(FixedLocator(inside))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def show_percent(value: float) -> str:
    """0.015 -> 1.5 %."""
    return f"{round(100 * value, 6):g} %"


def show_number(value: float) -> str:
    """1500 -> 1,500; 25000 -> 25k; 2000000 -> 2M; 0.5 -> 0.5."""
    size = abs(value)
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            unit = 1e3 if letter == "k" else unit
            return f"{round(value / unit, 6):g}{letter}"
    return f"{value:,.0f}" if size >= 1000 else f"{round(value, 6):g}"


def unit_of(largest: float) -> tuple[float, str]:
    """A factor and a prefix for values up to `largest`: (1e9, "G")."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if largest >= factor:
            return factor, prefix
    return 1.0, ""


def grey_level(colours: np.ndarray) -> np.ndarray:
    """(…, 3) in 0..1 -> (…) in 0..1, as bright as each looks."""
    return np.asarray(colours @ np.array([0.2126, 0.7152, 0.0722]))
