"""What every group of options shares: frozen, unknown keys refused, and a way back to a TOML table."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from common.config.endpoint import check_connect, check_listen

# Options about the command itself: they are flags only, no keys of a file, and no part of a resolved configuration.
COMMAND_FIELDS = frozenset({"config", "dry_run"})


class Options(BaseModel):
    """Base of all options. An option is declared once, as a field with its default, range and description.

    Flags, TOML keys, the lines of `--help` and the checks follow from the fields. `model_fields_set` holds what was
    given explicitly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def dump(self) -> dict[str, Any]:
        """All options as a nested table of str, int, float, bool and list, ready for TOML; None is left out."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields if self._dumps(name)}

    def _dumps(self, name: str) -> bool:
        return name not in COMMAND_FIELDS and getattr(self, name) is not None


def _plain(value: Any) -> Any:
    if isinstance(value, Options):
        return value.dump()
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _check_device(device: str) -> str:
    kind, _, index = device.partition(":")
    if device in ("auto", "cpu", "cuda", "mps") or (kind == "cuda" and index.isdecimal()):
        return device
    raise ValueError("must be auto, cpu, cuda, cuda:N or mps")


Device = Annotated[str, AfterValidator(_check_device)]
ListenEndpoint = Annotated[str, AfterValidator(check_listen)]
ConnectEndpoint = Annotated[str, AfterValidator(check_connect)]
