"""What is known about a run while it goes on, read from the metrics file that its trainer writes."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import RunOptions

RATE_POINTS = 12  # metrics lines over which the speed is taken


class Tail:
    """Complete lines appended to a file by another process. The file need not exist yet.

    Attributes:
        is_other_file: at the last call another file was in the place of the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode: int | None = None
        self.is_other_file = False

    def read(self) -> list[str]:
        """The lines since the last call; one that is still being written comes with a later call.

        Of another file that took the place of the one before, as a resumed trainer puts it there, all lines.
        """
        self.is_other_file = False
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if self._inode not in (None, inode):
                    self.is_other_file, self._offset = True, 0
                self._inode = inode
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.decode(errors="replace").splitlines()


@dataclass
class Progress:
    """The newest figures of a run and its speed. Figures are numbers by tag, as in metrics.jsonl."""

    options: RunOptions
    folder: Path
    clock: Callable[[], float] = time.monotonic
    figures: dict[str, float] = field(default_factory=dict)
    step: int = 0
    status: str = ""  # what happens at the moment, where figures do not tell; "" is the usual
    is_training: bool = False  # the trainer that runs now has recorded a step
    _points: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RATE_POINTS))
    _started: float = 0.0
    _heard: float = 0.0

    def __post_init__(self) -> None:
        self._started = self._heard = self.clock()

    def add(self, line: str) -> None:
        """Takes in one line of metrics.jsonl; a line that is none is passed over."""
        try:
            figures = json.loads(line)
            step, wall_s = int(figures["step"]), float(figures["wall_s"])
        except (ValueError, KeyError, TypeError):
            return
        if "loss/selected" in figures or "loss/plain" in figures:
            # Means since the line before: a kind that did not occur has none, and its old one is of no interest.
            self._forget("loss/selected", "loss/plain")
        self.figures |= _numbers(figures)
        self.step = step
        self.is_training = step > 0
        self._heard = self.clock()
        if not self._points or step > self._points[-1][0]:
            self._points.append((step, wall_s))

    def follow(self, tail: Tail) -> None:
        """Takes in what was recorded since the last call. A resumed trainer goes back to its checkpoint's step."""
        lines = tail.read()
        if tail.is_other_file:
            self.figures, self.step = {}, 0
        for line in lines:
            self.add(line)
        if tail.is_other_file:
            self.await_trainer()

    def await_trainer(self) -> None:
        """What was recorded is of an earlier trainer: its figures stay until there are newer ones, not its speed."""
        self.is_training = False
        self._points.clear()

    def _forget(self, *tags: str) -> None:
        for tag in tags:
            self.figures.pop(tag, None)

    @property
    def is_complete(self) -> bool:
        """Whether all steps are recorded; the trainer may still evaluate and save."""
        return self.step >= self.options.steps

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self._started

    @property
    def steps_per_s(self) -> float | None:
        """Over the last metrics lines; None before there are two."""
        if len(self._points) < 2:
            return None
        (first_step, first_s), (last_step, last_s) = self._points[0], self._points[-1]
        return (last_step - first_step) / max(last_s - first_s, 1e-9)

    @property
    def left_s(self) -> float | None:
        """Seconds to the last step at this speed, counted down between two metrics lines; None if unknown."""
        speed = self.steps_per_s
        if speed is None:
            return None
        return max(0.0, (self.options.steps - self.step) / speed - (self.clock() - self._heard))


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {tag: value for tag, value in figures.items() if isinstance(value, int | float)}
