"""Options that trainer and scorer must agree on, or that mean the same to every process."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config.base import Options
from common.config.data import AugmentOptions, DataOptions

SMALL_MACHINE_CORES = 4


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
    config: Path | None = Field(default=None, description="TOML file with options: same names, with underscores")
    dry_run: bool = Field(default=False, description="print the resolved options and stop")

    @property
    def num_threads(self) -> int | None:
        """Intra-op threads to set; None leaves torch's choice."""
        if self.threads is not None:
            return self.threads
        return 1 if (os.cpu_count() or 1) <= SMALL_MACHINE_CORES else None


class PrecisionOptions(Options):
    """What every process is told that may have to score."""

    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="precision of the forward passes that score candidates: the scorers', or with --mode fresh the "
        "trainer's, which trains in float32",
    )
