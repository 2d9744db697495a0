"""Trials: every arm with every seed, in the order in which they run, and what is left of them in their folders."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.config import RunOptions
from common.errors import ConfigError
from common.experiment.compare.arms import Arm
from common.experiment.records import PILOTS, RunRecord, load_record
from common.experiment.summarise import flatten
from common.run_folder import OPTIONS, SUMMARY, is_complete

RUNS = "runs"
PILOT_SEED = 0


@dataclass(frozen=True)
class Trial:
    """One run: an arm with a seed. Its log and options file lie beside its folder.

    Attributes:
        folder: absolute.
        options: what the run is told, but for folder and devices.
    """

    arm: Arm
    seed: int
    folder: Path
    options: RunOptions

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")


def plan_trials(arms: Sequence[Arm], seeds: Sequence[int], root: Path) -> list[Trial]:
    """Seed by seed, so that what the machine does meanwhile meets every arm."""
    return [
        Trial(
            arm,
            seed,
            root / RUNS / arm.folder_name / f"seed-{seed}",
            arm.options.model_copy(update={"seed": seed, "out": None}),
        )
        for seed in seeds
        for arm in arms
    ]


def pilot_of(arm: Arm, root: Path, steps: int) -> Trial:
    """A short run of the arm that measures what a step takes, whatever the seeds. It is not evaluated on the way."""
    log = arm.options.log.model_copy(update={"eval_every": 0})
    options = arm.options.model_copy(update={"seed": PILOT_SEED, "out": None, "steps": steps, "log": log})
    return Trial(replace(arm, options=options), PILOT_SEED, root / PILOTS / arm.folder_name / "pilot", options)


def record_of(trial: Trial) -> RunRecord | None:
    """The record of a trial that ended by itself with these options; None for one that is to run."""
    if not (trial.folder / SUMMARY).is_file():
        return None
    try:
        record = load_record(trial.folder)
    except ConfigError:
        return None  # damaged, or of another version
    if not is_complete(record.summary) or _identity(record.options) != _identity(trial.options):
        return None
    return record


def check_is_free(trial: Trial) -> None:
    """Raise ConfigError if a trial that is to run would overwrite more than what an incomplete run left."""
    folder = trial.folder
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / OPTIONS).is_file()):
        raise ConfigError(
            f"{folder} is in the way of {trial.name}: it is no run folder (no {OPTIONS}); move it or remove it"
        )
    if not (folder / SUMMARY).is_file():
        return
    record = load_record(folder)  # a damaged one is for people to look at
    found, wanted = _identity(record.options), _identity(trial.options)
    if is_complete(record.summary) and found != wanted:
        key = next(key for key in {**found, **wanted} if found.get(key) != wanted.get(key))
        raise ConfigError(
            f"{folder} holds a finished run with {key} = {found.get(key)}, and {trial.name} is to have "
            f"{wanted.get(key)}; compare into another --out, or remove it"
        )


def clear(trial: Trial) -> None:
    """Removes what a run left that did not complete. Raises ConfigError as `check_is_free` does."""
    check_is_free(trial)
    if trial.folder.exists():
        shutil.rmtree(trial.folder)


def _identity(options: RunOptions) -> dict[str, Any]:
    """Everything but folder and devices."""
    return flatten(options) | {"seed": options.seed}
