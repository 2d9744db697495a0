"""The last linear layer of a model, and the model under its wrappers."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from common.errors import ConfigError

MOST_LISTED = 8


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile, nested in any order."""
    while True:
        compiled_from = model.__dict__.get("_modules", {}).get("_orig_mod")  # where torch.compile keeps its module
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
        elif isinstance(compiled_from, nn.Module):
            model = compiled_from
        else:
            return model


def find_head(model: nn.Module, name: str | None = None) -> nn.Linear:
    """The linear layer that makes the logits; its rows are what the Minimal Margin Score divides by.

    Args:
        model: wrapped or not.
        name: dotted path inside the unwrapped model, such as "classifier.6"; None takes the last nn.Linear in the order
            in which the model lists its modules, which is the order in which they were assigned.

    Raises:
        ConfigError: there is no nn.Linear, or none of that name.
    """
    modules = dict(unwrap(model).named_modules())
    linears = {path: module for path, module in modules.items() if isinstance(module, nn.Linear)}
    kind = type(unwrap(model)).__name__
    if not linears:
        raise ConfigError(f"--head: {kind} has no nn.Linear, and scores need one that makes the logits")
    if name is None:
        return list(linears.values())[-1]
    if name in linears:
        return linears[name]
    seen = type(modules[name]).__name__ if name in modules else "no module"
    raise ConfigError(
        f"--head {name}: must name an nn.Linear of {kind}, got {seen}; its linear layers: {_listed(linears)}"
    )


def _listed(linears: dict[str, nn.Linear]) -> str:
    """The last few, with their shapes: heads come last."""
    shown = [
        f"{path} ({linear.in_features} to {linear.out_features})"
        for path, linear in list(linears.items())[-MOST_LISTED:]
    ]
    num_left = len(linears) - len(shown)
    return ", ".join(shown) + (f" and {num_left} before them" if num_left else "")
