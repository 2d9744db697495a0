"""The progress display of a comparison: live on a terminal, plain lines elsewhere."""

import os
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.experiment.compare.board import Board, Running
from common.experiment.display import LIVE_EVERY_S, UNKNOWN, duration, figures_of

PLAIN_EVERY_S = 15.0
SHOWN_FIGURES = ("held-out accuracy", "staleness", "waiting")
NAME_WIDTH = 34


class BoardDisplay(Protocol):
    """Shows a board while its context is open. `show` may be called often; with `now` it does not wait its turn."""

    def __enter__(self) -> "BoardDisplay": ...

    def __exit__(self, *exc_info: object) -> None: ...

    def show(self, board: Board, *, now: bool = False) -> None: ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


def make_board_display(stream: TextIO) -> BoardDisplay:
    """A live display where the stream is a terminal that can move its cursor, else plain lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return LiveBoard(Console(file=stream, force_terminal=True))
    return PlainBoard(stream)


class LiveBoard:
    """Redraws in place, below the lines that were said."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._console = console
        self._next = 0.0

    def __enter__(self) -> "LiveBoard":
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def show(self, board: Board, *, now: bool = False) -> None:
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + LIVE_EVERY_S
            self._live.update(render_board(board), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(Text(text))


class PlainBoard:
    """A line for every run that ends, and for the running ones a line now and then, without control codes."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next = clock() + PLAIN_EVERY_S
        self._shown = ""

    def __enter__(self) -> "PlainBoard":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def show(self, board: Board, *, now: bool = False) -> None:
        parts = [_line(running) for running in board.running]
        news = "; ".join([*parts, board.status] if board.status else parts)
        if news in ("", self._shown) or (not now and self._clock() < self._next):
            return
        self._shown = news
        left = board.left_s
        ending = f" | {duration(left)} left" if left is not None else ""
        self.say(f"{duration(board.elapsed_s)} | {board.num_ended}/{board.total} runs | {news}{ending}")

    def say(self, text: str) -> None:
        self._next = self._clock() + PLAIN_EVERY_S
        self._stream.write(f"{text}\n")
        self._stream.flush()


def ended_line(board: Board, running: Running, error: str | None) -> str:
    """What is said of a run that has ended: `7/18 stale:8, seed 1: held-out accuracy 97.50%, 0:09`."""
    number = f"{board.num_ended:{len(str(board.total))}}/{board.total}"
    accuracy = running.progress.figures.get("accuracy/held_out")
    what = "done" if accuracy is None else f"held-out accuracy {accuracy:.2%}"
    if error is not None:
        what = f"failed: {error}"
    return f"{number} {running.trial.name}: {what}, {duration(running.progress.elapsed_s)}"


def render_board(board: Board) -> RenderableType:
    """All runs in one bar, then each running one in a line of its own with its newest figures below."""
    parts: list[RenderableType] = [
        _row(Text(board.title, "bold", no_wrap=True, overflow="ellipsis"), Text(duration(board.elapsed_s), "dim")),
        _row(ProgressBar(total=max(board.total, 1), completed=board.num_ended), Text(_pace(board))),
    ]
    for running in board.running:
        options = running.progress.options
        bar = ProgressBar(total=options.steps, completed=running.progress.step, complete_style="cyan")
        where = f" on {running.device}" if running.device else ""
        line = Table.grid(expand=True, padding=(0, 2))
        line.add_column(width=min(NAME_WIDTH, len(running.trial.name) + len(where)), no_wrap=True, overflow="ellipsis")
        line.add_column(ratio=1, no_wrap=True)
        line.add_column(no_wrap=True, justify="right")
        line.add_row(Text(f"{running.trial.name}{where}", "cyan"), bar, Text(_steps(running)))
        parts += [line, Text(_figures(running), "dim", no_wrap=True, overflow="ellipsis")]
    if board.status:
        parts.append(Text(board.status, "yellow", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _row(left: RenderableType, right: Text) -> Table:
    line = Table.grid(expand=True, padding=(0, 2))
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(no_wrap=True, justify="right")
    line.add_row(left, right)
    return line


def _pace(board: Board) -> str:
    parts = [f"{board.num_ended}/{board.total} runs"]
    if board.failed:
        parts.append(f"{len(board.failed)} failed")
    if board.left_s is not None and board.num_ended < board.total:
        parts.append(f"{duration(board.left_s)} left")
    return ", ".join(parts)


def _steps(running: Running) -> str:
    progress = running.progress
    parts = [f"{progress.step}/{progress.options.steps} steps"]
    if progress.steps_per_s is not None:
        parts.append(f"{progress.steps_per_s:.3g}/s")
    return ", ".join(parts)


def _figures(running: Running) -> str:
    if running.progress.status:
        return running.progress.status
    shown = [
        f"{label} {value}"
        for label, value in figures_of(running.progress)
        if label in SHOWN_FIGURES and value != UNKNOWN
    ]
    return " | ".join(shown) or "…"


def _line(running: Running) -> str:
    return f"{running.trial.name}: {_steps(running)} | {_figures(running)}"
