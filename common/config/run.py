"""Options of a whole run on this machine, and what each of its processes gets of them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from common.config.base import COMMAND_FIELDS, Device
from common.config.endpoint import from_here, is_interface
from common.config.scorer import ScorerOptions, ScoringOptions
from common.config.shared import SMALL_MACHINE_CORES
from common.config.trainer import TrainerOptions
from common.selection.registry import wrong_backend

MAX_TRAINERS = 1024


def _parse_devices(value: Any) -> Any:
    """`auto` names none."""
    return () if value in ("auto", ["auto"], ("auto",)) else value


def same_device(device: str) -> str:
    """One name for devices that have two: `cuda` is `cuda:0`."""
    return "cuda:0" if device == "cuda" else device


Devices = Annotated[tuple[Device, ...], BeforeValidator(_parse_devices)]


class RunOptions(ScoringOptions, TrainerOptions):
    """Scorers and trainer on this machine."""

    trainers: int = Field(
        default=1,
        ge=1,
        le=MAX_TRAINERS,
        description="number of trainer processes that train one model together, each on a GPU of its own, or all on "
        "the CPU; --batch-size, --candidates and --chunk-size are of each",
    )
    scorers: int = Field(
        default=1, ge=0, description="number of scorer processes; none are started unless the mode is stale"
    )
    restarts: int = Field(
        default=5,
        ge=0,
        description="times that each scorer is started again if it dies; a trainer that crashes is resumed once, "
        "unless this is 0",
    )
    devices: Devices = Field(
        default=(),
        description="devices of the run: the first ones are the trainers', scorers take the others in turn; by default "
        "(auto) all GPUs, or the CPU where there is none",
    )
    pin: Literal["auto", "none"] = Field(
        default="auto",
        description="auto gives trainer and scorers cores of their own on machines of up to "
        f"{SMALL_MACHINE_CORES} cores; none leaves all of them to the system",
    )

    @property
    def resolved_backend(self) -> str:
        """`backend`, or what the method asks for."""
        return self.entry.backend if self.backend == "auto" else self.backend

    @model_validator(mode="after")
    def _listens_at_an_address(self) -> Self:
        if self.listen is not None and is_interface(self.listen):
            raise ValueError(
                f"--listen {self.listen}: scorers of a run are told it, so name an address of the interface"
            )
        return self

    @model_validator(mode="after")
    def _devices_are_told_apart(self) -> Self:
        devices = [same_device(device) for device in self.devices]
        if "auto" in devices:
            raise ValueError(f"--devices {' '.join(self.devices)}: auto stands for all GPUs, so it stands alone")
        if twice := [device for device in devices if devices.count(device) > 1]:
            raise ValueError(f"--devices names {twice[0]} twice; leave one out")
        if self.trainers > 1 and self.device not in ("auto", "cpu"):
            raise ValueError(
                f"--device {self.device} is one device, and --trainers {self.trainers} take one each: NCCL lets no "
                "two ranks share a GPU; leave --device out and name all with --devices, or use --device cpu"
            )
        if self.trainers > 1 and self.step.capture:
            raise ValueError(f"--step.capture records the step of one trainer, not of {self.trainers}; leave it off")
        return self

    @model_validator(mode="after")
    def _backend_serves_the_method(self) -> Self:
        if not self.needs_scorers:
            return self
        entry = self.entry
        wants = "predicted losses" if entry.backend == "predictor" else "scores of a model"
        wrong = wrong_backend(
            self.resolved_backend,
            f"--method {self.method}",
            wants=wants,
            wanted=entry.backend,
            embeddings=entry.embeddings,
        )
        if wrong is not None:
            raise ValueError(wrong)
        return self

    def for_trainer(self, *, listen: str | None, out: Path, device: str | None = None) -> TrainerOptions:
        """The trainer's options. `device` None leaves the one given."""
        device = self.device if device is None else device
        return TrainerOptions(**(self._share(TrainerOptions) | {"listen": listen, "out": out, "device": device}))

    def for_scorer(self, *, connect: str, device: str | None = None, profile_to: Path | None = None) -> ScorerOptions:
        """A scorer's options. `device` None leaves the one given."""
        device = self.scorer_device if device is None else device
        own: dict[str, Any] = {"connect": from_here(connect), "scorer_device": device, "backend": self.resolved_backend}
        own["profile_to"] = profile_to if self.profile else None
        own["metrics_port"] = None  # the trainer's
        return ScorerOptions(**(self._share(ScorerOptions) | own))

    def _share(self, kind: type[TrainerOptions] | type[ScorerOptions]) -> dict[str, Any]:
        names = (set(kind.model_fields) & set(type(self).model_fields)) - COMMAND_FIELDS
        return {name: getattr(self, name) for name in names}
