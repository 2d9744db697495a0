"""How far a comparison is: runs done and to come, those that run now, and the time that is left."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from common.experiment.children import Child
from common.experiment.compare.trials import Trial
from common.experiment.progress import Progress, Tail
from common.run_folder import METRICS


@dataclass
class Running:
    """A trial that runs now."""

    trial: Trial
    child: Child
    device: str | None
    progress: Progress
    _tail: Tail

    @classmethod
    def of(cls, trial: Trial, child: Child, device: str | None, clock: Callable[[], float]) -> "Running":
        progress = Progress(trial.options, trial.folder, clock)
        return cls(trial, child, device, progress, Tail(trial.folder / METRICS))

    def refresh(self) -> None:
        """Brings progress up to date from the run folder."""
        self.progress.follow(self._tail)
        self.progress.status = "" if self.progress.is_training else "starting: importing torch, opening the data…"
        if self.progress.is_complete:
            self.progress.status = "evaluating and saving…"


@dataclass
class Board:
    """The state of all trials, for whoever shows it.

    Attributes:
        title: what is compared.
        waiting: trials to come, in order.
        num_kept: trials that an earlier call completed.
        status: what happens at the moment, where that is not the usual; "" if it is.
    """

    title: str
    waiting: list[Trial]
    num_kept: int = 0
    num_done: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # name of the trial: its error
    running: list[Running] = field(default_factory=list)
    status: str = ""
    side_by_side: int = 1
    clock: Callable[[], float] = time.monotonic
    _took_s: dict[str, list[float]] = field(default_factory=dict)  # by arm
    _started: float = 0.0

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def total(self) -> int:
        return self.num_ended + len(self.waiting) + len(self.running)

    @property
    def num_ended(self) -> int:
        return self.num_kept + self.num_done + len(self.failed)

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self._started

    def started(self, trial: Trial, child: Child, device: str | None) -> Running:
        self.running.append(Running.of(trial, child, device, self.clock))
        return self.running[-1]

    def ended(self, running: Running, error: str | None) -> None:
        """Takes a trial off the running ones. `error` None: it is complete."""
        self.running.remove(running)
        if error is not None:
            self.failed[running.trial.name] = error
            return
        self.num_done += 1
        self._took_s.setdefault(running.trial.arm.name, []).append(running.progress.elapsed_s)

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of all, from how long runs took so far, those of the same arm if there are any."""
        all_took = [seconds for took in self._took_s.values() for seconds in took]
        if not all_took and self.waiting:
            return None
        left = 0.0
        for trial in self.waiting:
            left += _mean(self._took_s.get(trial.arm.name) or all_took)
        for running in self.running:
            took = self._took_s.get(running.trial.arm.name) or all_took
            by_speed = running.progress.left_s
            if by_speed is None and not took:
                return None
            left += by_speed if by_speed is not None else max(0.0, _mean(took) - running.progress.elapsed_s)
        return left / self.side_by_side


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
