"""Loss and accuracy on held-out data, or on any samples without augmentation.

B = batch, C = classes, n = samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.data.source import Source, Split
from common.errors import DataError
from common.models import evaluating, unwrap
from common.models.loss import per_sample_loss


@dataclass(frozen=True)
class Evaluation:
    """Means over the held-out samples, or over those that were asked for.

    Attributes:
        accuracy: in [0, 1]; over all targets where a sample has several. NaN where the model's outputs are no logits of
            its targets.
        loss: without label smoothing; nats where it is the cross-entropy.
        num: samples.
    """

    accuracy: float
    loss: float
    num: int


class Abandoned(Exception):
    """An evaluation was given up."""


def evaluate(
    model: nn.Module,
    source: Source,
    *,
    device: torch.device | str,
    batch_size: int = 512,
    is_late: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Evaluate on `source.held_out`, as `sample_losses` does.

    Raises:
        Abandoned: `is_late`, which is asked before every batch, said so.
        DataError: the source has no held-out data.
    """
    if source.held_out is None or len(source.held_out) == 0:
        raise DataError(f"source {source.name} has no held-out data to evaluate on")
    ids = torch.arange(len(source.held_out))
    split = source.held_out
    return sample_losses(model, source, split, ids, device=device, batch_size=batch_size, is_late=is_late)[1]


def sample_losses(
    model: nn.Module,
    source: Source,
    split: Split,
    ids: Tensor,
    *,
    device: torch.device | str,
    batch_size: int = 512,
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, Evaluation]:
    """Losses of samples, not augmented, in eval mode; afterwards every module has its own training flag back.

    Sums stay on the device, in float64 where it has that, and are waited for once, at the end.

    Args:
        model: on `device`; wrapped or not. Wrappers are bypassed: one rank may evaluate alone, and no shape is compiled
            for the last, shorter batch.
        source: prepares the inputs.
        split: of that source.
        ids: (n,) int64 on the CPU, n >= 1, of samples of the split.

    Returns:
        (n,) float32 losses on `device`, in the order of `ids`, and their means.
    """
    model, num = unwrap(model), len(ids)
    device = torch.device(device)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    correct_sum, loss_sum = torch.zeros(2, dtype=dtype, device=device).unbind()
    losses = torch.empty(num, device=device)
    with evaluating(model), torch.inference_mode():
        for start in range(0, num, batch_size):
            if is_late():
                raise Abandoned
            inputs, targets = (_to(tensor, device) for tensor in split.fetch(ids[start : start + batch_size]))
            outputs = model(source.prepare(inputs))
            batch_losses = per_sample_loss(model, outputs, targets)
            losses[start : start + batch_size] = batch_losses
            loss_sum += batch_losses.sum(dtype=dtype)
            correct_sum += _num_correct(outputs, targets, source.num_classes)
    correct, loss = torch.stack([correct_sum, loss_sum]).tolist()
    evaluation = Evaluation(accuracy=correct / (num * math.prod(targets.shape[1:])), loss=loss / num, num=num)
    return losses, evaluation


def _num_correct(outputs: Tensor, targets: Tensor, num_classes: int) -> Tensor | float:
    """() int64; logits are (B, ..., C), (B, C, ...), or one per target where there are two classes; else NaN."""
    if not isinstance(outputs, Tensor) or targets.is_floating_point():
        return math.nan
    if outputs.shape[:-1] == targets.shape and outputs.shape[-1] >= num_classes:
        predicted = outputs.argmax(dim=-1)
    elif outputs.ndim > 2 and (outputs.shape[0], *outputs.shape[2:]) == targets.shape:
        predicted = outputs.argmax(dim=1)
    elif outputs.numel() == targets.numel() and num_classes == 2:
        predicted = (outputs > 0).reshape(targets.shape).long()
    else:
        return math.nan
    return (predicted == targets).sum()


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    """From pinned memory to a GPU, so that the copy is not waited for."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
