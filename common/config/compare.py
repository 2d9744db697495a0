"""Options of a comparison: which arms and seeds, and what all their runs share."""

import copy
from pathlib import Path
from typing import Any

from pydantic import Field, create_model, model_validator

from common.config.base import Device, Options
from common.config.run import RunOptions

# Set by the comparison itself, run by run.
SET_BY_COMPARE = frozenset(
    {"mode", "seed", "out", "listen", "listen_on_all", "keys", "insecure", "connect_s", "resume"}
    | {"metrics_port", "unhealthy_after_s", "trainers"}
)


class CompareOptions(Options):
    """Arms (ways of selecting) and seeds over one set of shared options, each a run of its own, and their report.

    An arm is uniform, fresh or stale, and after a colon the options in which it differs: stale:64,precision=bf16.
    """

    arms: tuple[str, ...] = Field(
        default=("uniform", "fresh", "stale"),
        description="NAME[:KEY=VALUE,...] with NAME uniform, fresh or stale and KEY an option without its dashes; "
        "stale:64 is stale:push-every=64",
    )
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="every arm runs once with each")
    targets: tuple[float, ...] = Field(
        default=(), description="held-out accuracies, 0 to 1: what does it take each arm to reach them"
    )
    out: Path | None = Field(
        default=None,
        description="folder; the same command goes on where it stopped; by default runs/compare-DATA-METHOD-TIME",
    )
    budget_s: float | None = Field(
        default=None,
        gt=0,
        description="seconds of training of each run, without evaluations; a pilot finds the steps of each arm",
    )
    budget_flops: float | None = Field(
        default=None, gt=0, description="floating-point operations of each run, training and scoring; likewise"
    )
    pilot_steps: int = Field(default=150, gt=1, description="steps of the pilot that measures what a step takes")
    equal_cores: bool = Field(
        default=True,
        description="add plain arms with as many threads as the processes of a stale arm have together",
    )
    side_by_side: int = Field(
        default=1, gt=0, description="runs at a time; sharing a device, they report no wall-clock"
    )
    devices: tuple[Device, ...] = Field(default=(), description="devices that the runs take in turn")
    config: Path | None = Field(default=None, description="TOML file with options: same names, with underscores")
    dry_run: bool = Field(default=False, description="print every run with its options and stop")

    @model_validator(mode="after")
    def _agree(self) -> "CompareOptions":
        devices = tuple("cuda:0" if device == "cuda" else device for device in self.devices)
        for name, values in (("arms", self.arms), ("seeds", self.seeds), ("devices", devices)):
            if not values and name != "devices":
                raise ValueError(f"--{name} needs at least one value")
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"--{name} names {twice[0]} twice; leave one out")
        if any(not 0 < target <= 1 for target in self.targets):
            raise ValueError(f"--targets must be accuracies in (0, 1], got {' '.join(map(str, self.targets))}")
        if any(not 0 <= seed < 2**63 for seed in self.seeds):
            raise ValueError(f"--seeds must be at least 0 and below 2**63, got {' '.join(map(str, self.seeds))}")
        if self.budget_s is not None and self.budget_flops is not None:
            raise ValueError("--budget-s contradicts --budget-flops; leave one out")
        if self.budget_s is not None and self.shares_device:
            raise ValueError(
                f"--budget-s needs each run to have a device for itself, and --side-by-side {self.side_by_side} runs "
                f"share {len(self.devices) or 1}; use --budget-flops or --steps"
            )
        return self

    @property
    def shares_device(self) -> bool:
        """Whether runs at the same time share a device, so that their seconds mean nothing."""
        return self.side_by_side > max(1, len(self.devices))

    @property
    def given(self) -> dict[str, Any]:
        """The options of the runs that were given, as a nested table: those that all arms share."""
        names = set(RunOptions.model_fields) - set(CompareOptions.model_fields)
        return {name: value for name, value in _given(self).items() if name in names}


def _given(options: Options) -> dict[str, Any]:
    """Options that were given explicitly, groups as tables."""
    table: dict[str, Any] = {}
    for name in type(options).model_fields:
        if name in options.model_fields_set:
            value = getattr(options, name)
            table[name] = _given(value) if isinstance(value, Options) else value
    return table


def _run_fields() -> dict[str, Any]:
    left_out = SET_BY_COMPARE | set(CompareOptions.model_fields)
    return {
        name: (field.annotation, copy.copy(field))
        for name, field in RunOptions.model_fields.items()
        if name not in left_out
    }


# What the command line and a file may say: the above and the options of the runs, each checked by itself. What they
# must be together is checked for each arm.
CompareFlags: type[CompareOptions] = create_model(
    "CompareOptions", __base__=CompareOptions, __doc__=CompareOptions.__doc__, **_run_fields()
)
