"""Runs of an arm with a budget and a seed: started one at a time, kept in a folder, read back."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import to_toml
from common.errors import MarginstreamError
from common.experiment.children import Child, StopSignals
from common.experiment.compare.runner import Runner, start_run
from common.experiment.compare.show import BoardDisplay
from common.experiment.compare.trials import RUNS, Trial, record_of
from common.experiment.records import RunRecord
from common.run_folder import ENVIRONMENT
from tests.bench.target.arms import TWO_PROCESSES, TargetArm

DIVERGED = "lower --lr or set"  # in what the trainer says of it


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        accuracy: held-out, at the end of the schedule; 0 where training diverged.
        train_s: seconds from the first step to the last, without evaluation. NaN where training diverged.
        start_s: seconds before the first step: imports, data, the model, and where scorers score the first scores.
    """

    accuracy: float
    train_s: float
    start_s: float
    steps: int
    summary: Mapping[str, Any]


class Stopped(Exception):
    """A signal came."""


class Runs:
    """All runs below one folder. A run that is complete there is not repeated.

    Args:
        root: absolute.
    """

    def __init__(self, root: Path, stop: StopSignals, display: BoardDisplay) -> None:
        self._root = root
        self._stop = stop
        self._display = display

    def trial(self, arm: TargetArm, steps: int, seed: int) -> Trial:
        """One run; its options say all about it but for the number of processes, which is in the arm's name."""
        options = arm.arm.options.model_copy(update={"steps": steps, "seed": seed, "out": None})
        folder = self._root / RUNS / arm.arm.folder_name / f"steps-{steps}" / f"seed-{seed}"
        return Trial(arm.arm, seed, folder, options)

    def known(self, arm: TargetArm, steps: int, seed: int) -> Outcome | None:
        """The outcome of a run that is complete."""
        trial = self.trial(arm, steps, seed)
        if (record := record_of(trial)) is not None:
            return _outcome(trial, record)
        return _diverged(steps) if _mark(trial).is_file() else None

    def make(self, arm: TargetArm, steps: int, seed: int) -> Outcome:
        """Makes the run unless it is complete.

        Raises:
            Stopped: a signal came meanwhile.
            MarginstreamError: it failed, but for training that diverged.
        """
        if (known := self.known(arm, steps, seed)) is not None:
            return known
        trial = self.trial(arm, steps, seed)
        begin = _begin_two_processes if arm.name == TWO_PROCESSES else start_run
        errors = Runner(self._stop, self._display, begin=begin).run(f"{arm.name}, {steps} steps", [trial])
        if self._stop.received:
            raise Stopped
        if error := errors.get(trial.folder):
            if DIVERGED not in error:
                raise MarginstreamError(f"{arm.name}, {steps} steps, seed {seed}: {error}; see {trial.log}")
            _mark(trial).write_text(error)
        outcome = self.known(arm, steps, seed)
        assert outcome is not None, "a run that ended in order has a record"
        return outcome


def _outcome(trial: Trial, record: RunRecord) -> Outcome:
    summary, first = record.summary, record.metrics[0]
    before_folder_s = (trial.folder / ENVIRONMENT).stat().st_mtime - _options_file(trial).stat().st_mtime
    start_s = before_folder_s + first["wall_s"] - first["train_s"]
    return Outcome(summary["accuracy"], summary["train_s"], start_s, summary["steps"], summary)


def _diverged(steps: int) -> Outcome:
    return Outcome(0.0, float("nan"), float("nan"), steps, {})


def _mark(trial: Trial) -> Path:
    return trial.folder.with_name(f"{trial.folder.name}.diverged")


def _options_file(trial: Trial) -> Path:
    return trial.folder.with_name(f"{trial.folder.name}.toml")


def _begin_two_processes(trial: Trial, device: str | None) -> Child:
    """As `start_run`, for the arm that `marginstream run` does not have."""
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    _options_file(trial).write_text(to_toml(trial.options.model_copy(update={"out": trial.folder}).dump()))
    with trial.log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.target.two_processes", str(_options_file(trial))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    return Child(trial.name, process, trial.log)
