"""Nested groups of the trainer's options: what people change less often."""

from typing import Literal

from pydantic import Field, model_validator

from common.config.base import Options


class OptimOptions(Options):
    """Optimiser and loss."""

    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of sgd")
    nesterov: bool = Field(default=False, description="Nesterov's form of momentum, for sgd")
    weight_decay: float = Field(default=5e-4, ge=0, description="weight decay; decoupled for adamw")
    clip_norm: float | None = Field(default=None, gt=0, description="gradient norm to clip to; by default no clipping")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")


class ScheduleOptions(Options):
    """Learning-rate schedule, counted in steps."""

    name: Literal["constant", "step", "cosine", "linear"] = Field(
        default="cosine",
        description="step: times gamma at each milestone; cosine and linear: down to 0 at the last step",
    )
    milestones: tuple[int, ...] = Field(default=(), description="steps at which step lowers the rate")
    gamma: float = Field(default=0.1, gt=0, lt=1, description="factor at each milestone")

    @model_validator(mode="after")
    def _milestones_rise(self) -> "ScheduleOptions":
        if self.name == "step" and not self.milestones:
            raise ValueError("--schedule.name step needs --schedule.milestones, for example 1000 1500")
        if any(milestone <= 0 for milestone in self.milestones) or sorted(set(self.milestones)) != list(
            self.milestones
        ):
            shown = " ".join(map(str, self.milestones))
            raise ValueError(f"--schedule.milestones must be positive and rise, got {shown}")
        return self


class SelectionOptions(Options):
    """When selection applies."""

    warmup_fraction: float = Field(
        default=0.05, ge=0, le=1, description="share of the steps, at the start, on plain batches"
    )
    anneal_fraction: float = Field(
        default=0.1, ge=0, le=1, description="share of the steps, at the end, on plain batches"
    )

    @model_validator(mode="after")
    def _fractions_fit(self) -> "SelectionOptions":
        total = self.warmup_fraction + self.anneal_fraction
        if total > 1:
            raise ValueError(
                f"--selection.warmup-fraction and --selection.anneal-fraction must add up to at most 1, got {total:g}"
            )
        return self


class ServiceOptions(Options):
    """Waiting, leases and liveness of a stale run."""

    start_wait_s: float = Field(
        default=60.0, ge=0, description="seconds to wait for the first scored chunk before step 1"
    )
    wait_deadline_s: float = Field(
        default=120.0, gt=0, description="seconds that --fallback wait waits before it gives up"
    )
    leases_per_scorer: int = Field(default=2, gt=0, description="chunks that a scorer holds at a time, at the least")
    lease_s: float = Field(default=60.0, gt=0, description="seconds after which an unanswered lease is issued again")
    silence_s: float = Field(
        default=10.0, gt=0, description="seconds without a heartbeat after which a peer counts as dead"
    )


class LogOptions(Options):
    """What is recorded, how often."""

    log_every: int = Field(default=50, gt=0, description="steps between log lines and metrics")
    eval_every: int = Field(
        default=200, ge=0, description="steps between evaluations on held-out data; 0: only at the end"
    )
    tensorboard: bool = Field(default=True, description="write TensorBoard curves")
    trace: bool = Field(
        default=False, description="write ids and losses of every batch to trace.jsonl; waits for the device"
    )
