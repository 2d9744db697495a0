"""Options that trainer and scorer must agree on, or that mean the same to every process."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.base import Options
from common.config.data import AugmentOptions, DataOptions

SMALL_MACHINE_CORES = 4
RECALIBRATE_EVERY = 64


class SharedOptions(DataOptions):
    """What every process of a run is told."""

    augment: AugmentOptions = Field(default=AugmentOptions(), description="augmentation of training images")
    model: str = Field(
        default="small",
        min_length=1,
        description="small, resnetN (N = 6n+2), wrn-N-K, a classification model of torchvision, "
        "or your own as module:callable",
    )
    head: str | None = Field(default=None, description="name of the last linear layer, if it is not the last nn.Linear")
    threads: int | None = Field(
        default=None,
        gt=0,
        description=f"intra-op threads of each process; by default 1 on machines of up to {SMALL_MACHINE_CORES} cores, "
        "else torch's choice",
    )
    data_device: Literal["cpu", "device"] = Field(
        default="cpu",
        description="where training samples are kept and augmented: in main memory, or (device) all of them in that of "
        "the GPU that scores or trains",
    )
    config: Path | None = Field(default=None, description="TOML file with options: same names, with underscores")
    dry_run: bool = Field(default=False, description="print the resolved options and stop")

    @property
    def num_threads(self) -> int | None:
        """Intra-op threads to set; None leaves torch's choice."""
        if self.threads is not None:
            return self.threads
        return 1 if (os.cpu_count() or 1) <= SMALL_MACHINE_CORES else None


class ProfileOptions(Options):
    """What every process of a run is told that may be looked into."""

    profile: bool = Field(
        default=False,
        description="write a Chrome trace of some tens of steps, and of chunks, from the middle of the run",
    )


class HealthOptions(Options):
    """What trainer and scorer are told that operators watch."""

    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="answer /healthz, /readyz and Prometheus' /metrics at this port of 127.0.0.1; 0 takes any free one",
    )
    unhealthy_after_s: float = Field(
        default=300.0,
        gt=0,
        description="seconds in which a loop must come round, or /healthz fails: more than a step, a chunk or an "
        "evaluation takes",
    )


class PrecisionOptions(Options):
    """What every process is told that may have to score."""

    precision: Literal["float32", "bf16", "fp16", "int8", "auto"] = Field(
        default="float32",
        description="precision of the forward passes that score candidates: the scorers', or with --mode fresh the "
        "trainer's, which trains in float32. fp16 is for CUDA, int8 for the CPU; auto takes the fastest of this device "
        "that selects nearly what float32 does, measured at the start",
    )
    compile: bool = Field(
        default=False,
        description="capture the forward passes that score in a CUDA graph; for bf16 and fp16",
    )
    recalibrate_every: int = Field(
        default=RECALIBRATE_EVERY,
        gt=0,
        description="weights versions between two calibrations of int8, after the first few, which are closer together",
    )

    @model_validator(mode="after")
    def _check_compile(self) -> Self:
        if self.compile and self.precision in ("float32", "int8"):
            raise ValueError(f"--compile goes with --precision bf16, fp16 or auto, got {self.precision}")
        return self
