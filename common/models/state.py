"""Parameters of a model from a file."""

from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.models.head import unwrap


def load_state(model: nn.Module, path: Path, *, option: str, remedy: str, what: str = "the model") -> None:
    """Load a state dict (tensors only, no code), as `torch.save(model.state_dict(), path)` writes it.

    Args:
        option, remedy, what: what named the file, such as `--init`, what to do about a wrong one, and what it should
            fit; for the message.

    Raises:
        ConfigError: the file is missing, is no state dict, or is one of another model.
    """
    where = f"{option} {path}"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: no such file; {remedy}") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors alike for files that are not its own
        raise ConfigError(f"{where} is no file of tensors ({type(error).__name__}); {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{where} holds no state dict; {remedy}")
    try:
        unwrap(model).load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{where} does not fit {what}; {remedy}: {error}") from error
