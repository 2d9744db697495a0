"""Curves of runs on a common grid, by numbers known beforehand."""

import numpy as np
import pytest

from common.experiment.report.curves import MAX_POINTS, Line, band, line, per_window, smoothed


def curve(x: list[float], y: list[float]) -> Line:
    return Line(np.array(x, float), np.array(y, float))


def test_a_line_takes_the_rows_that_have_all_numbers():
    rows = [
        {"step": 10, "a": 1.0, "b": 2.0, "y": 0.5},
        {"step": 20, "a": 2.0, "y": 0.4},
        {"step": 30, "a": 3.0, "b": 4.0, "y": None},
        {"step": 40, "a": 4.0, "b": 5.0, "y": 0.2},
        {"step": 40, "a": 4.0, "b": 5.0, "y": 0.1},
        {"step": 50, "a": float("nan"), "b": 5.0, "y": 0.1},
    ]
    found = line(rows, ["a", "b"], "y")
    assert found.x.tolist() == [3.0, 9.0]
    assert found.y.tolist() == [0.5, 0.1], "of rows with one x the last counts"


def test_x_that_falls_back_is_dropped():
    rows = [{"step": step, "y": float(step)} for step in (1, 5, 3, 6)]
    assert line(rows, "step", "y").x.tolist() == [1, 5, 6]


def test_a_band_of_runs_with_equal_x_is_their_mean_and_extremes():
    found = band([curve([1, 2, 3], [1, 2, 6]), curve([1, 2, 3], [3, 2, 0])])
    assert (found.x.tolist(), found.mean.tolist()) == ([1, 2, 3], [2, 2, 3])
    assert (found.low.tolist(), found.high.tolist(), found.num) == ([1, 2, 0], [3, 2, 6], 2)


def test_runs_of_different_lengths_are_interpolated_where_all_of_them_are():
    found = band([curve([0, 4], [0, 4]), curve([1, 3, 9], [10, 30, 90])])
    assert found.x.tolist() == [1, 3, 4]
    assert found.low.tolist() == [1, 3, 4]
    assert found.high.tolist() == [10, 30, 40]
    assert found.mean.tolist() == [5.5, 16.5, 22]


def test_no_band_without_points_or_without_a_common_range():
    assert band([]) is None
    assert band([curve([], [])]) is None
    assert band([curve([1, 2], [0, 0]), curve([3, 4], [0, 0])]) is None


def test_a_run_without_points_does_not_count():
    assert band([curve([], []), curve([1, 2], [5, 6])]).num == 1


def test_the_mean_of_equal_runs_stays_within_the_band():
    found = band([curve([1], [0.1])] * 3)
    assert found.low[0] <= found.mean[0] <= found.high[0]


def test_long_runs_share_a_grid_of_bounded_size():
    x = np.arange(5000.0)
    found = band([Line(x, 2 * x), Line(x + 0.5, 2 * x)])
    assert len(found.x) == MAX_POINTS
    np.testing.assert_allclose(found.high - found.low, 1)


def test_what_a_total_gains_in_each_window():
    found = per_window(np.array([0.0, 10, 20, 40]), np.array([0.0, 5, 5, 25]), 20)
    assert (found.x.tolist(), found.y.tolist()) == ([5, 15, 30], [0.5, 0, 1])
    two = per_window(np.arange(9.0), np.arange(9.0) ** 2, 2)
    assert (two.x.tolist(), two.y.tolist()) == ([2, 6], [4, 12])
    assert len(per_window(np.array([1.0]), np.array([1.0]), 5)) == 0


@pytest.mark.parametrize("windows", [2, 3])
def test_smoothing_keeps_the_mean(windows):
    found = smoothed(curve([1, 2, 3, 4, 5, 6], [0, 2, 4, 6, 8, 10]), windows)
    assert len(found) == windows
    assert found.y.mean() == 5
    assert found.x.mean() == 3.5
