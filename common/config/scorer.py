"""Options of a scorer."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from common.config.access import AccessOptions, check_access
from common.config.base import ConnectEndpoint, Device, Options
from common.config.shared import HealthOptions, PrecisionOptions, ProfileOptions, SharedOptions


class SyntheticBackendOptions(Options):
    """The scorer without torch, for `--backend synthetic`: it sleeps and sends seeded scores."""

    chunk_s: float = Field(default=0.01, ge=0, description="seconds that scoring one chunk takes")
    seed: int = Field(default=0, ge=0, description="seed of the scores")


class ScoringOptions(ProfileOptions, PrecisionOptions):
    """What a scorer is told beyond the shared options, by `scorer` and by `run` alike."""

    scorer_device: Device = Field(default="auto", description="device of the scorers: auto, cpu, cuda, cuda:N or mps")
    backend: Literal["auto", "torch", "predictor", "proxy", "synthetic"] = Field(
        default="auto",
        description="torch scores with the model, proxy with a smaller one of its own, predictor predicts losses from "
        "past ones; synthetic sleeps and sends seeded scores (for tests). auto: what the method asks for in a run, "
        "torch for a scorer started by itself",
    )
    proxy_model: str | None = Field(
        default=None, min_length=1, description="model of --backend proxy: a name like those of --model"
    )
    proxy_weights: Path | None = Field(
        default=None, description="file with a state dict: the proxy is frozen at these weights instead of trained"
    )
    proxy_lr: float = Field(default=0.05, gt=0, description="learning rate of the proxy: one step of SGD a chunk")
    proxy_train_fraction: float = Field(
        default=0.25, gt=0, le=1, description="share of each chunk, at least one sample, that trains the proxy"
    )
    synthetic_backend: SyntheticBackendOptions = Field(
        default=SyntheticBackendOptions(), description="the scorer without a model"
    )
    connect_s: float = Field(default=60.0, gt=0, description="seconds to look for a trainer before giving up")

    @property
    def resolved_backend(self) -> str:
        """`backend`, or what `auto` stands for."""
        return "torch" if self.backend == "auto" else self.backend

    @model_validator(mode="after")
    def _check_backend(self) -> Self:
        backend = self.resolved_backend
        if backend == "proxy" and self.proxy_model is None:
            raise ValueError("--backend proxy needs --proxy-model: a model smaller than --model, such as small")
        if backend != "proxy":
            for name in ("proxy_model", "proxy_weights"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name.replace('_', '-')} needs --backend proxy, got --backend {self.backend}")
        if backend in ("proxy", "predictor") and self.precision not in ("float32", "auto"):
            raise ValueError(f"--backend {backend} computes in float32, got --precision {self.precision}")
        return self


class ScorerOptions(AccessOptions, HealthOptions, ScoringOptions, SharedOptions):
    """One scorer process."""

    # Where only one kind of process is meant, --device says enough; in a file `device` stays the trainer's.
    flag_aliases: ClassVar[dict[str, tuple[str, ...]]] = {"scorer_device": ("--device",)}

    connect: ConnectEndpoint = Field(description="endpoint of the trainer: ipc://PATH or tcp://HOST:PORT")
    profile_to: Path | None = Field(
        default=None, description="file for the trace of --profile; by default trace-scorer-PID.json where it started"
    )

    @model_validator(mode="after")
    def _connects_to_whom_it_may(self) -> Self:
        check_access("--connect", self.connect, self)
        return self
