"""What a comparison shows of its progress: counts, the time that is left, the runs of the moment."""

import io
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from common.experiment.children import Child
from common.experiment.compare.arms import read_arms
from common.experiment.compare.board import Board
from common.experiment.compare.show import LiveBoard, PlainBoard, ended_line, make_board_display, render_board
from common.experiment.compare.trials import Trial, plan_trials
from tests.common.experiment.planted import evaluation, plant


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return plan_trials(read_arms(["uniform", "stale:8"], {"steps": 100, "batch_size": 8}), [0, 1], tmp_path)


@pytest.fixture
def child(tmp_path: Path) -> Child:
    process = subprocess.Popen(["true"])
    process.wait()
    return Child("x", process, tmp_path / "log")


def start(board: Board, child: Child, device: str | None = None) -> None:
    board.started(board.waiting.pop(0), child, device)


def test_the_time_left_follows_from_runs_of_the_same_arm(trials: list[Trial], child: Child) -> None:
    clock = Clock()
    board = Board("toy", trials[:], clock=clock)
    assert board.left_s is None
    for seconds in (10.0, 30.0):
        start(board, child)
        clock.now += seconds
        board.ended(board.running[0], None)
    assert board.left_s == 40.0  # 10 s for uniform, 30 s for stale
    start(board, child)
    clock.now += 4.0
    assert board.left_s == 36.0
    assert (board.num_ended, board.total, board.elapsed_s) == (2, 4, 44.0)


def test_side_by_side_the_time_left_is_shared(trials: list[Trial], child: Child) -> None:
    clock = Clock()
    board = Board("toy", trials[:], clock=clock, side_by_side=2)
    start(board, child)
    clock.now = 10.0
    board.ended(board.running[0], None)
    assert board.left_s == 3 * 10.0 / 2


def test_a_failed_run_counts_as_ended_and_not_for_the_time(trials: list[Trial], child: Child) -> None:
    board = Board("toy", trials[:], num_kept=1)
    start(board, child)
    running = board.running[0]
    board.ended(running, "too hot")
    assert (board.num_ended, board.total, board.failed) == (2, 5, {"uniform, seed 0": "too hot"})
    assert board.left_s is None
    assert ended_line(board, running, "too hot") == "2/5 uniform, seed 0: failed: too hot, 0:00"


def test_the_display_shows_the_running_trial_with_its_figures(trials: list[Trial], child: Child) -> None:
    board = Board("small on digits", trials[:], status="")
    start(board, child, "cuda:1")
    plant(trials[0].folder, trials[0].options, metrics=[evaluation(20, 0.5), evaluation(40, 0.75)])
    board.running[0].refresh()
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(render_board(board))
    text = console.export_text()
    assert "small on digits" in text
    assert "0/4 runs" in text
    assert "uniform, seed 0 on cuda:1" in text
    assert "40/100 steps" in text
    assert "held-out accuracy 75.00%" in text
    assert max(map(len, text.splitlines())) <= 100


def test_plain_lines_come_now_and_then_and_hold_no_control_codes(trials: list[Trial], child: Child) -> None:
    clock, stream = Clock(), io.StringIO()
    display = PlainBoard(stream, clock=clock)
    board = Board("toy", trials[:], clock=clock)
    start(board, child)
    display.show(board)
    assert stream.getvalue() == ""
    display.show(board, now=True)
    clock.now = 20.0
    display.show(board)  # no news
    board.status = "ending"
    display.show(board)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("0:00 | 0/4 runs | uniform, seed 0: 0/100 steps")
    assert second.startswith("0:20 | 0/4 runs | uniform, seed 0: 0/100 steps")
    assert second.endswith("ending")
    assert "\x1b" not in stream.getvalue()


def test_a_stream_that_is_no_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_board_display(io.StringIO()), PlainBoard)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_board_display(Terminal()), LiveBoard)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_board_display(Terminal()), PlainBoard)
