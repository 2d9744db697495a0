"""One optimiser step on a batch, and the means of what it saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.config import LearningOptions
from common.models.loss import per_sample_loss
from trainer.batch import Batch
from trainer.optimizers import clip_gradients
from trainer.ranks.ballot import Ballot


@dataclass(frozen=True)
class StepResult:
    """Of one batch, on the device: `losses` (b,) float32 and the number of correct predictions, NaN where unknown."""

    losses: Tensor
    num_correct: Tensor


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: Batch,
    options: LearningOptions,
    forward: Callable[[Tensor], Any] | None = None,
    ballot: Ballot | None = None,
    before_backward: Callable[[], None] = lambda: None,
) -> StepResult:
    """Forward, backward of mean(weights · losses), clip, step. Never waits for the device.

    Args:
        forward: the model's forward pass in another form; the model itself by default. With a ballot it is one that
            averages gradients over the ranks.
        ballot: what the ranks vote with; None where there is one rank.
        before_backward: called once the loss is known.
    """
    optimizer.zero_grad(set_to_none=True)
    result = take_gradients(
        model, batch.inputs, batch.targets, batch.weights, options, forward or model, ballot, before_backward
    )
    if ballot is not None:
        ballot.count(batch.step)
    optimizer.step()
    schedule.step()
    return result


def take_gradients(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor,
    options: LearningOptions,
    forward: Callable[[Tensor], Any],
    ballot: Ballot | None = None,
    before_backward: Callable[[], None] = lambda: None,
) -> StepResult:
    """Forward, backward, clip: everything between `zero_grad` and the optimiser's step."""
    outputs = forward(inputs)
    losses = per_sample_loss(model, outputs, targets, options.optim.label_smoothing)
    loss = (weights * losses).mean()
    before_backward()
    if ballot is None:
        loss.backward()
    else:
        ballot.backward(loss)
    if options.optim.clip_norm is not None:
        clip_gradients(model.parameters(), options.optim.clip_norm)
    return StepResult(losses.detach(), _num_correct(outputs, targets))


def _num_correct(outputs: object, targets: Tensor) -> Tensor:
    if isinstance(outputs, Tensor) and outputs.ndim == 2 and targets.ndim == 1 and outputs.shape[1] > 1:
        return (outputs.detach().argmax(dim=1) == targets).sum()
    return torch.full((), torch.nan, device=targets.device)


class BatchMeans:
    """Means over the samples of several batches, by curve. Sums stay on the device until `take`."""

    def __init__(self, device: torch.device) -> None:
        self._sums = {kind: torch.zeros(3, dtype=torch.float64, device=device) for kind in ("selected", "plain")}

    def add(self, batch: Batch, result: StepResult) -> None:
        sums = self._sums["selected" if batch.is_selected else "plain"]
        sums[0] += result.losses.sum()
        sums[1] += result.num_correct
        sums[2] += len(batch)

    def take(self) -> dict[str, float]:
        """`loss/KIND` and `accuracy/KIND` since the last call, for the kinds that occurred. Waits for the device."""
        means: dict[str, float] = {}
        for kind, sums in self._sums.items():
            loss, correct, num = sums.tolist()
            sums.zero_()
            if num:
                means |= {f"loss/{kind}": loss / num, f"accuracy/{kind}": correct / num}
        return means

    def state_dict(self) -> dict[str, Tensor]:
        return self._sums

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for kind, sums in self._sums.items():
            sums.copy_(state[kind])
