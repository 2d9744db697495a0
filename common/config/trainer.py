"""Options of the trainer."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from common.config.base import Device, ListenEndpoint
from common.config.shared import SharedOptions
from common.config.training import LogOptions, OptimOptions, ScheduleOptions, SelectionOptions, ServiceOptions

# `auto` takes all that are ready, up to this many candidates per selected sample.
MAX_CANDIDATES_PER_SELECTED = 10


def _parse_candidates(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    if isinstance(value, str) and value.isdecimal() and int(value) > 0:
        return int(value)
    raise ValueError("must be auto or an integer greater than 0")


def _check_payload(payload: str) -> str:
    kind, separator, count = payload.partition(":")
    if payload == "all" or (kind == "best" and separator and count.isdecimal() and int(count) >= 1):
        return payload
    raise ValueError("must be all, or best:K with K of at least 1")


Candidates = Annotated[int | Literal["auto"], BeforeValidator(_parse_candidates)]
Payload = Annotated[str, AfterValidator(_check_payload)]


class TrainerOptions(SharedOptions):
    """One training run."""

    init: Path | None = Field(default=None, description="file with the parameters to start from")
    mode: Literal["uniform", "fresh", "stale"] = Field(
        default="stale",
        description="stale: scorers score; fresh: the trainer scores, with current weights; uniform: no scores",
    )
    method: Literal["uniform", "mms", "loss", "entropy"] = Field(default="mms", description="how samples are selected")
    steps: int = Field(default=2000, gt=0, description="optimiser steps of the whole run")
    batch_size: int = Field(default=32, gt=0, description="selected samples in each step, b")
    candidates: Candidates = Field(
        default="auto",
        description=f"candidates for each step, B, or auto: all that are ready, b to {MAX_CANDIDATES_PER_SELECTED}b",
    )
    chunk_size: int | None = Field(
        default=None,
        gt=0,
        description="positions scored together; by default about 2b that divide B, and in fresh mode B",
    )
    push_every: int = Field(default=8, gt=0, description="optimiser steps between weight pushes to the scorers")
    max_staleness: int = Field(
        default=64, ge=0, description="steps by which scores may be older than the step that uses them"
    )
    fallback: Literal["uniform", "reuse", "wait"] = Field(
        default="uniform",
        description="when scored candidates are late: a plain batch, the next-best of the last pool, or wait",
    )
    transfer: Literal["reference", "payload"] = Field(
        default="reference", description="scorers send scores only, or tensors and targets too"
    )
    payload: Payload = Field(
        default="all", description="tensors sent with --transfer payload: all, or best:K of each chunk"
    )
    wire: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="dtype of pushed weights; auto: float32 for float32 scorers, else bf16"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="optimiser")
    lr: float = Field(default=0.1, gt=0, description="peak learning rate")
    device: Device = Field(default="auto", description="device of the trainer: auto, cpu, cuda, cuda:N or mps")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of order, augmentation and initial parameters")
    out: Path | None = Field(default=None, description="run folder; by default runs/DATA-METHOD-TIME")
    listen: ListenEndpoint | None = Field(
        default=None,
        description="endpoint for scorers: ipc://PATH or tcp://127.0.0.1:PORT; by default a private ipc one",
    )
    optim: OptimOptions = Field(default=OptimOptions(), description="optimiser and loss")
    schedule: ScheduleOptions = Field(default=ScheduleOptions(), description="learning-rate schedule, in steps")
    selection: SelectionOptions = Field(default=SelectionOptions(), description="when selection applies")
    service: ServiceOptions = Field(default=ServiceOptions(), description="waiting, leases and liveness")
    log: LogOptions = Field(default=LogOptions(), description="what is recorded, how often")

    @model_validator(mode="before")
    @classmethod
    def _uniform_is_mode_and_method(cls, given: Any) -> Any:
        """`--mode uniform` and `--method uniform` mean each other; only explicit opposites are a conflict."""
        if not isinstance(given, dict):
            return given
        if "uniform" in (given.get("mode"), given.get("method")):
            given = {"mode": "uniform", "method": "uniform"} | given
        return given

    @model_validator(mode="after")
    def _agree(self) -> "TrainerOptions":
        if (self.mode == "uniform") != (self.method == "uniform"):
            raise ValueError(
                f"--mode {self.mode} contradicts --method {self.method}: uniform is both or neither; leave one out"
            )
        if self.mode != "uniform":
            self._check_candidates()
        if self.mode == "stale":
            self._check_staleness()
        if self.payload != "all" and self.transfer != "payload":
            raise ValueError(f"--payload {self.payload} needs --transfer payload, got {self.transfer}")
        if self.mode == "stale" and self.transfer == "payload":
            self._check_payload_fills_a_batch()
        if self.optim.nesterov and (self.optimizer != "sgd" or self.optim.momentum == 0):
            raise ValueError("--optim.nesterov needs --optimizer sgd and --optim.momentum greater than 0")
        return self

    @property
    def max_candidates(self) -> int:
        """B, or for `auto` the most that a step takes."""
        if self.candidates == "auto":
            return MAX_CANDIDATES_PER_SELECTED * self.batch_size
        return int(self.candidates)

    @property
    def resolved_chunk_size(self) -> int:
        """`chunk_size`, or its default: 2b, for a number of candidates the nearest that divides it; fresh mode: all."""
        if self.chunk_size is not None:
            return self.chunk_size
        if self.mode != "stale":
            return self.max_candidates
        if self.candidates == "auto":
            return 2 * self.batch_size
        total = self.max_candidates
        divisors = [size for size in range(self.batch_size, total + 1) if total % size == 0]
        return max((size for size in divisors if size <= 2 * self.batch_size), default=divisors[0])

    @property
    def payload_best(self) -> int | None:
        """K of `best:K`; None for `all`."""
        return None if self.payload == "all" else int(self.payload.partition(":")[2])

    def _check_candidates(self) -> None:
        limit = self.max_candidates
        if limit < self.batch_size:
            raise ValueError(
                f"--candidates must be at least --batch-size ({self.batch_size}), got {limit}; raise it or use auto"
            )
        if self.chunk_size is None:
            return
        if self.chunk_size > limit:
            shown = f"{limit}, for auto" if self.candidates == "auto" else limit
            raise ValueError(f"--chunk-size must be at most the candidates of a step ({shown}), got {self.chunk_size}")
        if self.candidates != "auto" and limit % self.chunk_size:
            raise ValueError(
                f"--candidates must be a multiple of --chunk-size ({self.chunk_size}), got {limit}; "
                "leave --chunk-size out for one that fits"
            )

    def _check_staleness(self) -> None:
        if self.max_staleness < self.push_every - 1:
            raise ValueError(
                f"--max-staleness must be at least --push-every - 1 ({self.push_every - 1}), got {self.max_staleness}; "
                "push more often or allow older scores"
            )

    def _check_payload_fills_a_batch(self) -> None:
        best, chunk = self.payload_best, self.resolved_chunk_size
        if best is None:
            return
        if best > chunk:
            raise ValueError(f"--payload best:K must have K of at most --chunk-size ({chunk}), got {best}")
        sent = best * (self.max_candidates // chunk)
        if sent < self.batch_size:
            raise ValueError(
                f"--payload best:{best} sends {sent} of {self.max_candidates} candidates, fewer than --batch-size "
                f"({self.batch_size}); raise K"
            )
