"""Options of a scorer."""

from typing import ClassVar, Literal

from pydantic import Field

from common.config.base import ConnectEndpoint, Device, Options
from common.config.shared import SharedOptions


class SyntheticBackendOptions(Options):
    """The scorer without torch, for `--backend synthetic`: it sleeps and sends seeded scores."""

    chunk_s: float = Field(default=0.01, ge=0, description="seconds that scoring one chunk takes")
    seed: int = Field(default=0, ge=0, description="seed of the scores")


class ScoringOptions(Options):
    """What a scorer is told beyond the shared options, by `scorer` and by `run` alike."""

    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="precision of the scorer's forward passes"
    )
    scorer_device: Device = Field(default="auto", description="device of the scorers: auto, cpu, cuda, cuda:N or mps")
    backend: Literal["torch", "synthetic"] = Field(
        default="torch", description="torch scores with the model; synthetic sleeps and sends seeded scores (for tests)"
    )
    synthetic_backend: SyntheticBackendOptions = Field(
        default=SyntheticBackendOptions(), description="the scorer without a model"
    )
    connect_s: float = Field(default=60.0, gt=0, description="seconds to look for a trainer before giving up")


class ScorerOptions(ScoringOptions, SharedOptions):
    """One scorer process."""

    # Where only one kind of process is meant, --device says enough; in a file `device` stays the trainer's.
    flag_aliases: ClassVar[dict[str, tuple[str, ...]]] = {"scorer_device": ("--device",)}

    connect: ConnectEndpoint = Field(description="endpoint of the trainer: ipc://PATH or tcp://HOST:PORT")
