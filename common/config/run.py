"""Options of a whole run on this machine, and what each of its processes gets of them."""

from pathlib import Path
from typing import Any

from pydantic import Field

from common.config.base import COMMAND_FIELDS
from common.config.scorer import ScorerOptions, ScoringOptions
from common.config.trainer import TrainerOptions


class RunOptions(ScoringOptions, TrainerOptions):
    """Scorers and trainer on this machine."""

    scorers: int = Field(
        default=1, ge=0, description="number of scorer processes; none are started unless the mode is stale"
    )

    def for_trainer(self, *, listen: str | None, out: Path, device: str | None = None) -> TrainerOptions:
        """The trainer's options. `device` None leaves the one given."""
        device = self.device if device is None else device
        return TrainerOptions(**(self._share(TrainerOptions) | {"listen": listen, "out": out, "device": device}))

    def for_scorer(self, *, connect: str, device: str | None = None) -> ScorerOptions:
        """A scorer's options. `device` None leaves the one given."""
        device = self.scorer_device if device is None else device
        backend = self.entry.backend if self.backend == "torch" else self.backend  # what the method asks for
        own = {"connect": connect, "scorer_device": device, "backend": backend}
        return ScorerOptions(**(self._share(ScorerOptions) | own))

    def _share(self, kind: type[TrainerOptions] | type[ScorerOptions]) -> dict[str, Any]:
        names = (set(kind.model_fields) & set(type(self).model_fields)) - COMMAND_FIELDS
        return {name: getattr(self, name) for name in names}
