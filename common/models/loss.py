"""The loss of each sample: cross-entropy, or the model's own where cross-entropy on a target is not its loss."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from common.errors import ConfigError


def own_loss(model: nn.Module) -> Callable[..., Tensor] | None:
    """The `per_sample_loss(outputs, targets) -> (B,)` that the model defines, seen through DDP; None without one."""
    while isinstance(model, DistributedDataParallel | DataParallel):
        model = model.module
    loss = getattr(model, "per_sample_loss", None)  # what torch.compile returns forwards to the module it wraps
    return loss if callable(loss) else None


def per_sample_loss(model: nn.Module, outputs: Any, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The training loss of each sample, differentiable.

    Args:
        model: its own `per_sample_loss(outputs, targets)` is used where it has one.
        outputs: what the model returned; (B, C) logits with C >= 2 where cross-entropy is to be used.
        targets: (B,) class indices, or (B, C) probabilities; whatever a model's own loss takes.
        label_smoothing: in [0, 1); of the cross-entropy.

    Returns:
        (B,) float32, in nats for cross-entropy; computed in float32.

    Raises:
        ConfigError: cross-entropy does not fit outputs or targets, the model's own loss is not (B,), or
            `label_smoothing` is set for it.
    """
    own, name = own_loss(model), type(model).__name__
    if own is None:
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
            raise ConfigError(
                f"{name} returns {_what(outputs)}; cross-entropy needs (B, C) logits with C >= 2: "
                "return those, or give the model a method per_sample_loss(outputs, targets) -> (B,)"
            )
        indices = targets.shape == outputs.shape[:1] and not targets.is_floating_point()
        if not indices and targets.shape != outputs.shape:
            raise ConfigError(
                f"{name} returns {_what(outputs)} and the targets are {_what(targets)}; cross-entropy needs (B,) class "
                "indices or (B, C) probabilities: give the model a method per_sample_loss(outputs, targets) -> (B,)"
            )
        targets = targets.long() if indices else targets.float()
        return F.cross_entropy(outputs.float(), targets, reduction="none", label_smoothing=label_smoothing)
    if label_smoothing:
        raise ConfigError(f"label_smoothing is of the cross-entropy, and {name} has a loss of its own; set it to 0")
    losses = own(outputs, targets)
    if not isinstance(losses, Tensor) or losses.shape != targets.shape[:1]:
        expected = f"({targets.shape[0]},)"
        raise ConfigError(f"{name}.per_sample_loss must return one loss per sample, {expected}, got {_what(losses)}")
    return losses.float()


def _what(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
