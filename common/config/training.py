"""Nested groups of the trainer's options: what people change less often."""

import math
from typing import Literal

from pydantic import Field, model_validator

from common.config.base import Options
from common.selection.registry import METHODS


class OptimOptions(Options):
    """Optimiser and loss."""

    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of sgd")
    nesterov: bool = Field(default=False, description="Nesterov's form of momentum, for sgd")
    weight_decay: float = Field(default=5e-4, ge=0, description="weight decay; decoupled for adamw")
    clip_norm: float | None = Field(default=None, gt=0, description="gradient norm to clip to; by default no clipping")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")


class StepOptions(Options):
    """How the training step is computed. Scores are not concerned."""

    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="of the forward and backward pass: bf16 by autocast; parameters and optimiser stay in float32",
    )
    compile: bool = Field(default=False, description="compile the model with torch.compile")
    capture: bool = Field(
        default=False,
        description="CUDA: replay the whole step as one graph; samples drawn twice are then computed twice",
    )


class ScheduleOptions(Options):
    """Learning-rate schedule, counted in steps."""

    name: Literal["constant", "step", "cosine", "linear"] = Field(
        default="cosine",
        description="step: times gamma at each milestone; cosine and linear: down to 0 at the last step",
    )
    milestones: tuple[int, ...] = Field(default=(), description="steps at which step lowers the rate")
    milestone_shares: tuple[float, ...] = Field(
        default=(), description="the same as shares of all steps, for example 0.5 0.75"
    )
    gamma: float = Field(default=0.1, gt=0, lt=1, description="factor at each milestone")

    @model_validator(mode="after")
    def _milestones_rise(self) -> "ScheduleOptions":
        if self.name == "step" and bool(self.milestones) == bool(self.milestone_shares):
            raise ValueError(
                "--schedule.name step needs --schedule.milestones, for example 1000 1500, or "
                f"--schedule.milestone-shares, for example 0.5 0.75; got {'both' if self.milestones else 'neither'}"
            )
        for name, values, most, words in (
            ("milestones", self.milestones, math.inf, "be positive and rise"),
            ("milestone-shares", self.milestone_shares, 1, "be in (0, 1) and rise"),
        ):
            if sorted(set(values)) != list(values) or not all(0 < value < most for value in values):
                raise ValueError(f"--schedule.{name} must {words}, got {' '.join(map(str, values))}")
        return self

    def resolved_milestones(self, steps: int) -> tuple[int, ...]:
        """In steps of a run of `steps`; shares are rounded to the nearest step."""
        return self.milestones or tuple(round(share * steps) for share in self.milestone_shares)


class SelectionOptions(Options):
    """When selection applies, what stands around every method, and the parameters of single ones."""

    warmup_fraction: float = Field(
        default=0.05, ge=0, le=1, description="share of the steps, at the start, on plain batches"
    )
    anneal_fraction: float = Field(
        default=0.1, ge=0, le=1, description="share of the steps, at the end, on plain batches"
    )
    uniform_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="share of each selected batch that is drawn uniformly"
    )
    class_quota: float | None = Field(
        default=None, gt=0, le=1, description="largest share of a batch that one class may fill; by default no limit"
    )
    weight_cap: float | None = Field(
        default=None, gt=0, description="largest weight of a draw; one drawn twice counts twice; by default no limit"
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        description="mms, loss, entropy, rho-loss: draw with p ~ exp(hardness / T) instead of taking the hardest, "
        "hardness in standard deviations; gradient-norm, biased-importance: p ~ score^(1/T)",
    )
    max_age: int = Field(
        default=3,
        ge=1,
        le=250,
        description="visits after which a remembered loss is computed anew: every n-th for stale-selective-backprop; "
        "epochs between two scorings of all samples for rank",
    )
    beta: float = Field(
        default=1.0, ge=0, description="power of the percentile; 1, 2, 3 keep 1/2, 1/3, 1/4 (selective-backprop)"
    )
    history: int = Field(default=1024, gt=0, description="losses that a percentile is taken of (selective-backprop)")
    bias_power: float = Field(
        default=0.5,
        le=1,
        description="1: unbiased, 0: unweighted, below: leans to the highest loss (biased-importance)",
    )
    tau_threshold: float | None = Field(
        default=None,
        gt=0,
        description="variance reduction above which to sample by importance; by default (B + 3b) / 3b (gradient-norm)",
    )
    tau_smoothing: float = Field(default=0.9, ge=0, lt=1, description="weight of the past in tau (gradient-norm)")
    pressure_start: float = Field(
        default=100.0, ge=1, description="how much likelier the highest loss is than the lowest, at the start (rank)"
    )
    pressure_end: float = Field(default=1.0, ge=1, description="the same at the end (rank)")
    switch_share: float = Field(
        default=0.5, gt=0, le=1, description="share of its first value that the loss must fall below (cdf-*)"
    )
    keep: float = Field(default=0.5, gt=0, le=1, description="share of the below-mean samples that stay (infobatch)")
    full_from: float = Field(
        default=0.875, ge=0, le=1, description="share of the steps after which nothing is pruned (infobatch)"
    )

    @model_validator(mode="after")
    def _fractions_fit(self) -> "SelectionOptions":
        total = self.warmup_fraction + self.anneal_fraction
        if total > 1:
            raise ValueError(
                f"--selection.warmup-fraction and --selection.anneal-fraction must add up to at most 1, got {total:g}"
            )
        return self

    def check_parameters(self, method: str) -> None:
        """Raise ValueError if a parameter was changed that this method does not read."""
        for name in sorted({name for entry in METHODS.values() for name in entry.parameters}):
            value = getattr(self, name)
            if name in METHODS[method].parameters or value == type(self).model_fields[name].default:
                continue
            readers = ", ".join(other for other, entry in METHODS.items() if name in entry.parameters)
            raise ValueError(
                f"--selection.{name.replace('_', '-')} {value} means nothing to --method {method}; it is for {readers}"
            )


class ServiceOptions(Options):
    """Waiting, leases and liveness of a stale run."""

    start_wait_s: float = Field(
        default=60.0, ge=0, description="seconds to wait for the first scored chunk before step 1"
    )
    wait_deadline_s: float = Field(
        default=120.0, gt=0, description="seconds that --fallback wait waits before it gives up"
    )
    leases_per_scorer: int = Field(
        default=2, gt=0, le=512, description="chunks that a scorer holds at a time, at the least"
    )
    lease_s: float = Field(default=60.0, gt=0, description="seconds after which an unanswered lease is issued again")
    silence_s: float = Field(
        default=10.0, gt=0, description="seconds without a heartbeat after which a peer counts as dead"
    )
    require_scorer_s: float = Field(
        default=0.0,
        ge=0,
        description="seconds without any scorer, counted from the end of start_wait_s, after which the run ends with "
        "exit code 6; 0: it trains on without, under --fallback",
    )


class CheckpointOptions(Options):
    """When a state is saved that --resume goes on from; a run that is asked to stop saves one in any case."""

    every: int = Field(default=0, ge=0, description="steps between checkpoints; 0: by time alone")
    every_s: float = Field(default=300.0, gt=0, description="seconds between checkpoints")
    keep: int = Field(default=2, gt=0, description="checkpoints that are kept, the newest ones")


class LogOptions(Options):
    """What is recorded, how often."""

    log_every: int = Field(default=50, gt=0, description="steps between log lines and metrics")
    eval_every: int = Field(
        default=200, ge=0, description="steps between evaluations on held-out data; 0: only at the end"
    )
    ledger: bool = Field(
        default=True, description="count per sample how often it was seen and selected, and write it to ledger.npz"
    )
    gallery: bool = Field(
        default=True, description="at the end, write the most and the least selected samples to gallery.npz"
    )
    margins: bool = Field(
        default=True, description="have minimal margins computed beside any other score, for the curve of mean margins"
    )
    recalibrate: int = Field(
        default=0,
        ge=0,
        description="uniform samples on which BatchNorm statistics are estimated anew for each evaluation; 0: none",
    )
    audit_fraction: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="share of the chunks that scorers score again with weights pushed since, to see how far both agree",
    )
    tensorboard: bool = Field(default=True, description="write TensorBoard curves")
    trace: bool = Field(
        default=False, description="write ids and losses of every batch to trace.jsonl; waits for the device"
    )
