"""What a comparison found, as data: results.json, one documented field for each figure.

`Results.model_json_schema()` is this documentation for machines. Units are in the names; `flops` are floating-point
operations, counted from the model. A figure that is not known is null: no wall-clock was taken, nothing was scored.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ConfigError
from common.whole_files import replace_file

RESULTS = "results.json"
CLEAN_FALLBACK_FRACTION = 0.05  # an arm that falls back more often did not do what it is named after

Number = int | float


class Record(BaseModel):
    """Base of all parts of results.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Spread(Record):
    """One figure over the seeds of an arm."""

    mean: float = Field(description="mean over the seeds")
    lowest: float = Field(description="lowest of the seeds")
    highest: float = Field(description="highest of the seeds")
    std: float | None = Field(description="sample standard deviation over the seeds; null for a single one")
    num: int = Field(description="seeds that the figure is known of")

    @classmethod
    def of(cls, values: Sequence[Number | None]) -> "Spread | None":
        """Over the values that are known; None if none is."""
        known = [float(value) for value in values if value is not None]
        if not known:
            return None
        mean = math.fsum(known) / len(known)
        squares = math.fsum((value - mean) ** 2 for value in known)
        std = math.sqrt(squares / (len(known) - 1)) if len(known) > 1 else None
        return cls(mean=mean, lowest=min(known), highest=max(known), std=std, num=len(known))


Value = TypeVar("Value")


class Figures(Record, Generic[Value]):
    """The account of a run, or of an arm: then each figure is a Spread over its seeds."""

    accuracy: Value | None = Field(default=None, description="held-out accuracy at the end, 0 to 1")
    loss: Value | None = Field(default=None, description="held-out loss at the end")
    steps: Value | None = Field(default=None, description="optimiser steps")
    samples_trained: Value | None = Field(
        default=None, description="samples that were back-propagated; drawn twice in one batch, one counts once"
    )
    samples_scored: Value | None = Field(
        default=None, description="candidates that went through a scoring forward pass"
    )
    flops_training: Value | None = Field(default=None, description="forward and backward passes of the trained samples")
    flops_scoring: Value | None = Field(
        default=None, description="forward passes that scored candidates, in any precision"
    )
    flops_scoring_low_precision: Value | None = Field(
        default=None, description="the part of flops_scoring that ran in less than float32"
    )
    flops_audit: Value | None = Field(default=None, description="forward passes of audits; not in flops_scoring")
    wall_s: Value | None = Field(
        default=None,
        description="seconds from the opening of the run folder to the end; null where runs shared a device",
    )
    train_s: Value | None = Field(
        default=None,
        description="seconds from the first step to the last, without evaluations; null where runs shared a device",
    )
    waited_fraction: Value | None = Field(
        default=None, description="share of the time in which the trainer waited for scored candidates"
    )
    fallback_fraction: Value | None = Field(
        default=None,
        description="share of the steps outside warm-up and annealing for which too few scored candidates were ready",
    )
    staleness_mean: Value | None = Field(
        default=None,
        description="steps between the weights that scored a selected sample and the step that trained on it",
    )
    staleness_max: Value | None = Field(default=None, description="the largest of those staleness values, in steps")
    candidates_per_selected: Value | None = Field(
        default=None, description="candidates offered for each selected sample"
    )


FIGURES = tuple(Figures.model_fields)


class RunResult(Figures[Number]):
    """One run: an arm with a seed."""

    seed: int = Field(description="seed of initialisation, order and augmentation")
    folder: str = Field(description="the run folder, relative to results.json where it lies below it")
    status: Literal["done", "failed", "missing"] = Field(description="missing: it has not run yet")
    error: str | None = Field(default=None, description="why it failed, in its own words")
    words: str | None = Field(default=None, description="the run in a few sentences")


class Reached(Record):
    """What it took an arm to reach a held-out accuracy: at the first evaluation that showed it."""

    target: float = Field(description="held-out accuracy, 0 to 1")
    num_runs: int = Field(description="runs of the arm that ended in order")
    num_reached: int = Field(description="of those, the ones that reached the target; 0 means not reached")
    step: Spread | None = Field(
        default=None, description="optimiser steps, over the runs that reached it; null: not reached"
    )
    train_s: Spread | None = Field(default=None, description="seconds since the first step, without evaluations")
    samples_trained: Spread | None = Field(default=None, description="samples trained")
    samples_scored: Spread | None = Field(default=None, description="candidates scored")
    flops: Spread | None = Field(default=None, description="training and scoring together; audits left out")
    train_ratio: float | None = Field(
        default=None,
        description="mean train_s over that of the plain arm; null unless every run of both arms reached the target",
    )
    flops_ratio: float | None = Field(default=None, description="mean flops over those of the plain arm, likewise")


class Ratio(Record):
    """An arm against plain training on at most as many cores, the fastest plain arm of those."""

    plain: str = Field(description="name of the plain arm")
    wall: float | None = Field(default=None, description="mean wall_s over the plain arm's")
    train: float | None = Field(default=None, description="mean train_s over the plain arm's")
    flops: float | None = Field(default=None, description="mean of training and scoring flops over the plain arm's")
    accuracy_points: float | None = Field(
        default=None, description="mean accuracy minus the plain arm's, in percentage points"
    )


class ArmResult(Figures[Spread]):
    """One arm: the same options with several seeds."""

    name: str = Field(description="as given to --arms")
    mode: Literal["uniform", "fresh", "stale"] = Field(description="how samples were selected")
    method: str = Field(description="selection method")
    options: dict[str, Any] = Field(description="options in which the arm differs from the shared ones, by dotted key")
    cores: int = Field(description="CPU cores that compute at once, or GPUs where the trainer computes on one")
    device: str = Field(description="cpu, or the kind of GPU device: cuda, mps")
    runs: list[RunResult] = Field(description="by seed")
    is_clean: bool = Field(
        description=f"whether mean fallback_fraction is at most {CLEAN_FALLBACK_FRACTION:g}; "
        "else the arm is not a clean comparison"
    )
    ratio_to_plain: Ratio | None = Field(
        default=None, description="null for plain arms, and where there is none to compare with"
    )
    reached: list[Reached] = Field(default=[], description="one for each target")

    @property
    def done(self) -> list[RunResult]:
        """The runs that ended in order."""
        return [run for run in self.runs if run.status == "done"]


class Budget(Record):
    """What every run was given."""

    kind: Literal["steps", "seconds", "flops"] = Field(description="seconds are train_s; flops training and scoring")
    amount: float = Field(description="how much of it")


class Results(Record):
    """One comparison."""

    format: Literal[1] = Field(default=1, description="version of this format")
    title: str = Field(description="what was compared, in a line")
    command: str = Field(description="the command that made this, as typed")
    created: str = Field(description="when, ISO 8601 with the offset from UTC")
    machine: dict[str, Any] | None = Field(default=None, description="environment.json of one of the runs")
    shared: dict[str, Any] = Field(description="options that all arms have in common, by dotted key")
    targets: tuple[float, ...] = Field(default=(), description="held-out accuracies that the arms were to reach")
    budget: Budget | None = Field(default=None, description="null where the runs were not made for this comparison")
    side_by_side: bool = Field(
        default=False, description="whether runs shared a device at the same time, so that their seconds mean nothing"
    )
    arms: list[ArmResult] = Field(description="in the order given")
    notes: list[str] = Field(default=[], description="what to know when reading the figures, in sentences")
    verdict: list[str] = Field(default=[], description="what the figures say, in sentences")


def write_results(path: Path, results: Results) -> None:
    """Writes results.json, whole or not at all."""
    replace_file(path, results.model_dump_json(indent=2) + "\n")


def read_results(path: Path) -> Results:
    """Reads results.json; `path` may be the folder that holds it.

    Raises:
        ConfigError: there is none, or it is of another format.
    """
    path = path / RESULTS if path.is_dir() else path
    try:
        return Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; marginstream compare writes one") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path} is not the results of a comparison of format 1: {where}: {first['msg']}") from error
