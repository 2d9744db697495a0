"""One progress display of a run: live on a terminal, a plain line now and then elsewhere."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.experiment.progress import Progress

LIVE_EVERY_S = 0.25
PLAIN_EVERY_S = 5.0
TWO_COLUMNS = 72  # narrower terminals get one

UNKNOWN = "–"
OF_SELECTED = frozenset({"selection/candidates_per_selected", "staleness/mean"})  # 0 means nothing before selection


class Display(Protocol):
    """Shows progress while its context is open. `show` may be called often; with `now` it does not wait its turn."""

    def __enter__(self) -> "Display": ...

    def __exit__(self, *exc_info: object) -> None: ...

    def show(self, progress: Progress, *, now: bool = False) -> None: ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


def make_display(stream: TextIO) -> Display:
    """A live display where the stream is a terminal that can move its cursor, else plain lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return LiveDisplay(Console(file=stream, force_terminal=True))
    return PlainDisplay(stream)


class LiveDisplay:
    """Redraws in place; what it showed last remains."""

    def __init__(self, console: Console) -> None:
        # Redrawn from the one thread that watches the run; the streams stay as they are.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._console = console
        self._next = 0.0

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def show(self, progress: Progress, *, now: bool = False) -> None:
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + LIVE_EVERY_S
            self._live.update(render(progress, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(Text(text))


class PlainDisplay:
    """Writes a line when there is news, at most every few seconds, without control codes."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next = 0.0
        self._shown = ""

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def show(self, progress: Progress, *, now: bool = False) -> None:
        news = plain_line(progress)
        if news in ("", self._shown) or (not now and self._clock() < self._next):
            return
        self._shown = news
        self._next = self._clock() + PLAIN_EVERY_S
        left = progress.left_s
        ending = f" | {duration(left)} left" if left is not None and progress.step < progress.options.steps else ""
        self._stream.write(f"{duration(progress.elapsed_s)} | {news}{ending}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


def plain_line(progress: Progress) -> str:
    """`step 1200/2000 | held-out accuracy 96.94% | loss of selected 0.431 | ...`; before any step only the status."""
    parts = []
    if progress.step:
        parts.append(f"step {progress.step}/{progress.options.steps}")
        parts += [f"{label} {value}" for label, value in figures_of(progress) if value != UNKNOWN]
    if progress.status:
        parts.append(progress.status)
    return " | ".join(parts)


def render(progress: Progress, width: int) -> RenderableType:
    """The live display, `width` columns wide: what runs, how far it is, its figures, and what else there is to say."""
    options = progress.options
    kind = options.method if options.mode == "uniform" else f"{options.method}, {options.mode}"
    head = _ends(
        Text(f"{options.model} on {options.data}: {kind}", "bold", no_wrap=True, overflow="ellipsis"),
        Text(duration(progress.elapsed_s), "dim"),
    )
    bar = _ends(ProgressBar(total=options.steps, completed=progress.step), Text(_pace(progress)))
    return Group(head, bar, _figures(figures_of(progress), 2 if width >= TWO_COLUMNS else 1), _status(progress))


def figures_of(progress: Progress) -> list[tuple[str, str]]:
    """Labels and values with their units, those that mean something in the run's mode; a dash where not known yet."""
    figures, mode = progress.figures, progress.options.mode
    has_selected = figures.get("selection/candidates_per_selected", 0) > 0

    def value(tag: str, form: str) -> str:
        return form.format(figures[tag]) if tag in figures and (has_selected or tag not in OF_SELECTED) else UNKNOWN

    shown = [("held-out accuracy", value("accuracy/held_out", "{:.2%}"))]
    waiting = ("waiting", value("time/waited_fraction", "{:.1%} of the time"))
    if mode == "uniform":
        return [*shown, waiting, ("loss of plain batches", value("loss/plain", "{:.3f}"))]
    if "loss/plain" in figures and "loss/selected" not in figures:
        shown.append(("loss of plain batches", value("loss/plain", "{:.3f}")))  # warm-up, annealing
    else:
        shown.append(("loss of selected", value("loss/selected", "{:.3f}")))
    shown.append(("loss of uniform candidates", value("loss/uniform", "{:.3f}")))
    per_selected = ("candidates per selected", value("selection/candidates_per_selected", "{:.1f}"))
    if mode == "fresh":
        return [*shown, waiting, per_selected]
    staleness = value("staleness/mean", "{:.1f} steps")
    if staleness != UNKNOWN and "staleness/max" in figures:
        staleness += f", at most {figures['staleness/max']:.0f}"
    return [
        *shown,
        per_selected,
        waiting,
        ("staleness", staleness),
        ("trained on selected", value("selection/selected_fraction", "{:.1%} of steps")),
        ("scorers", value("scorers", "{:.0f}")),
    ]


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`, `2 d 3 h`."""
    whole = round(seconds)
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if days:
        return f"{days} d {hours} h"
    if whole >= 3600:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"


def short(path: Path) -> str:
    """The path relative to the working folder where it lies within."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _ends(left: RenderableType, right: Text) -> Table:
    """One line: `left` in all the space that `right` leaves, at the two ends of it."""
    line = Table.grid(expand=True, padding=(0, 2))
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(no_wrap=True, justify="right")
    line.add_row(left, right)
    return line


def _pace(progress: Progress) -> str:
    parts = [f"{progress.step}/{progress.options.steps} steps"]
    speed, left = progress.steps_per_s, progress.left_s
    if speed is not None:
        parts.append(f"{speed:.3g}/s" if speed < 100 else f"{speed:.0f}/s")
    if progress.step < progress.options.steps and left is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def _figures(figures: Sequence[tuple[str, str]], columns: int) -> Table:
    """Down the first column, then down the second."""
    table = Table.grid(padding=(0, 2))
    for _ in range(columns):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
    rows = -(-len(figures) // columns)
    for row in range(rows):
        cells = [figures[index] for index in range(row, len(figures), rows)]
        table.add_row(*(Text(text) for cell in cells for text in cell))
    return table


def _status(progress: Progress) -> Text:
    return Text(progress.status, style="yellow", no_wrap=True, overflow="ellipsis")
