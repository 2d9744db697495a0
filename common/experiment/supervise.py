"""Watching over the processes of one run, from the first to the last of them."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.experiment.children import Child, StopSignals, await_end, end_all, last_lines
from common.experiment.display import Display, short
from common.experiment.progress import Progress, Tail
from common.run_folder import METRICS

TICK_S = 0.1
STOP_S = 120.0  # a stopped trainer completes its step, evaluates once and saves
LEAVE_S = 5.0  # scorers hear of the end from the trainer
BAD_INPUT, REFUSED = 2, 3  # exit codes of processes for which another try would end the same way


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: exit code of the whole run.
        failed: the process whose error ended it.
        lost: scorers that failed while it went on.
    """

    code: int
    failed: Child | None
    lost: tuple[Child, ...]


class Watch:
    """Brings progress up to date from the run folder and shows it."""

    def __init__(self, progress: Progress, display: Display, trainer: Child, scorers: Sequence[Child]) -> None:
        self.progress = progress
        self.stopping = ""
        self._display = display
        self._trainer = trainer
        self._scorers = scorers
        self._tail = Tail(progress.folder / METRICS)

    def __call__(self, *, now: bool = False) -> None:
        for line in self._tail.read():
            self.progress.add(line)
        self.progress.status = self.stopping or self._status()
        try:
            self._display.show(self.progress, now=now)
        except OSError:
            go_silent()

    def _status(self) -> str:
        if lost := _failed(self._scorers):
            return "; ".join(f"{scorer.fate()}, see {short(scorer.log)}" for scorer in lost)
        if not self._trainer.is_running:
            return ""
        if self.progress.step >= self.progress.options.steps:
            return "evaluating and saving…"
        if self.progress.is_training:
            return ""
        said = last_lines(self._trainer.log, 1)
        return _message(said[0]) if said else "starting: importing torch, opening the data…"


def supervise(trainer: Child, scorers: Sequence[Child], stop: StopSignals, watch: Watch) -> Outcome:
    """Watches until the trainer has ended, then sees to it that every process has."""
    everyone = [trainer, *scorers]
    hopeless = None
    while trainer.is_running and hopeless is None and not stop.received:
        watch()
        if not watch.progress.is_training:
            hopeless = next((scorer for scorer in scorers if scorer.code in (BAD_INPUT, REFUSED)), None)
        time.sleep(TICK_S)
    watch()
    lost = _failed(scorers)
    patient = _until_another_signal(stop, watch)
    if hopeless is not None and trainer.code in (None, 0):
        watch.stopping = "ending: a scorer cannot take part…"
        end_all(everyone, tick=patient)
        return Outcome(hopeless.code or REFUSED, hopeless, ())
    signalled = stop.received[0] if trainer.is_running else None
    if signalled is not None:
        watch.stopping = f"{signalled.name}: completing the step and saving; once more ends everything at once"
        trainer.terminate()
        if not await_end([trainer], STOP_S, tick=patient):
            _kill(everyone)
    watch.stopping = "ending the scorers…" if scorers else ""
    if trainer.code == 0 or signalled is not None:
        await_end(scorers, LEAVE_S, tick=patient)  # they end by themselves
    end_all(scorers, tick=patient)
    watch.stopping = ""
    watch(now=True)
    code = trainer.code
    assert code is not None, "the trainer has ended"
    if signalled is not None:
        return Outcome(128 + signalled, None, lost)
    return Outcome(code, trainer if code else None, lost if watch.progress.is_training or code == 0 else ())


def _failed(scorers: Sequence[Child]) -> tuple[Child, ...]:
    return tuple(scorer for scorer in scorers if scorer.code not in (None, 0))


def _until_another_signal(stop: StopSignals, watch: Watch) -> Callable[[], bool]:
    """A tick that shows progress and says whether to go on waiting: not once a further signal has come."""
    so_far = len(stop.received)

    def tick() -> bool:
        watch()
        return len(stop.received) == so_far

    return tick


def _kill(children: Sequence[Child]) -> None:
    for child in children:
        child.kill()


def _message(line: str) -> str:
    """The message of a log line, without its time, level and logger."""
    return line.partition(": ")[2] if line[:4].isdecimal() and ": " in line else line


def go_silent() -> None:
    """Whoever read our output has gone. The run goes on without, so what is written from now on goes nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
