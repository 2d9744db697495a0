"""Curves of single runs, and what several runs have in common: their mean and the range between the extremes.

n = points of a run, m = points of the common grid, R = runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_POINTS = 400  # of a common grid; more cannot be told apart on a figure
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One run's curve: x (n,) float64, strictly rising; y (n,) float64, finite."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Band:
    """Several runs' curves on one grid: x, mean, low, high, each (m,) float64; low <= mean <= high.

    `num` counts the runs.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    num: int


def line(rows: Sequence[Row], x_tags: str | Sequence[str], y_tag: str) -> Line:
    """The points of one run at which all the tags have a number.

    Args:
        rows: metrics in the order in which they were written.
        x_tags: one tag, or several whose sum is x.

    Returns:
        Points with x strictly rising: of rows with one x the last counts, and x that falls back is dropped.
    """
    tags = [x_tags] if isinstance(x_tags, str) else list(x_tags)
    points: dict[float, float] = {}
    for row in rows:
        values = [_number(row.get(tag)) for tag in (*tags, y_tag)]
        if any(value is None for value in values):
            continue
        *x_values, y = (value for value in values if value is not None)
        x = sum(x_values)
        if points and x < next(reversed(points)):
            continue
        points[x] = y
    return Line(np.array(list(points), np.float64), np.array(list(points.values()), np.float64))


def mapped(curve: Line, y: np.ndarray) -> Line:
    """The same x with other values: y (n,)."""
    return Line(curve.x, np.asarray(y, np.float64))


def band(curves: Sequence[Line]) -> Band | None:
    """The runs on the range of x that all of them cover, interpolated linearly between their points.

    Runs with equal x are not interpolated at all. The grid is the union of the runs' points, or of MAX_POINTS equal
    steps where that is more.

    Returns:
        None if no run has points, or if the runs' ranges do not meet.
    """
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return None
    start = max(curve.x[0] for curve in curves)
    stop = min(curve.x[-1] for curve in curves)
    grid = np.unique(np.concatenate([curve.x for curve in curves]))
    grid = grid[(grid >= start) & (grid <= stop)]
    if len(grid) == 0:
        return None
    if len(grid) > MAX_POINTS:
        grid = np.linspace(start, stop, MAX_POINTS)
    y_Rm = np.stack([np.interp(grid, curve.x, curve.y) for curve in curves])
    low, high = y_Rm.min(axis=0), y_Rm.max(axis=0)
    return Band(grid, np.clip(y_Rm.mean(axis=0), low, high), low, high, len(curves))


def smoothed(curve: Line, num_windows: int) -> Line:
    """Means over `num_windows` runs of neighbouring points, each at the mean of their x; fewer points stay."""
    if len(curve) <= num_windows:
        return curve
    parts = np.array_split(np.arange(len(curve)), num_windows)
    return Line(np.array([curve.x[part].mean() for part in parts]), np.array([curve.y[part].mean() for part in parts]))


def per_window(x: np.ndarray, total: np.ndarray, num_windows: int) -> Line:
    """What a running total gained per unit of x, in windows of about equal numbers of points.

    Args:
        x: (n,) strictly rising; total: (n,), the sum up to x.

    Returns:
        At the middle of each window: (total at its end - total at its start) / its length. Empty for n < 2.
    """
    if len(x) < 2:
        return Line(np.empty(0), np.empty(0))
    edges = np.unique(np.linspace(0, len(x) - 1, min(num_windows, len(x) - 1) + 1).round().astype(np.int64))
    x, total = x[edges], total[edges]
    return Line((x[1:] + x[:-1]) / 2, np.diff(total) / np.diff(x))


def _number(value: Any) -> float | None:
    """The value if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        return None
    return float(value)
