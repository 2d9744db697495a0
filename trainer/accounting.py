"""What a run computes, counted from its model: floating-point operations of training and of scoring.

Counted are matrix products, convolutions and attention, two for each multiplication with its addition; what is linear
in the activations (norms, activation functions, pooling, the optimiser) is not.
"""

import copy
import logging
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.data.source import Source
from common.models import evaluating, unwrap
from common.models.loss import per_sample_loss

log = logging.getLogger(__name__)

NUM_COUNTED = 2  # samples in the batch that is counted: BatchNorm cannot train on one
Shape = Sequence[int]
Scored = Mapping[tuple[str, str], int]  # candidates by (backend, precision) of whoever scored them


@dataclass(frozen=True)
class Cost:
    """Operations for one sample; NaN where they cannot be counted.

    Attributes:
        forward: of a forward pass in eval mode: what scoring a candidate costs.
        backward: what training on a sample costs beyond that.
    """

    forward: float = math.nan
    backward: float = math.nan


@dataclass(frozen=True)
class Account:
    """What was trained and scored so far.

    Attributes:
        trained: samples, those of a batch that were drawn twice counting once, as they are computed once.
        scored: candidates by who scored them, used or not.
        audited: forward passes of candidates that were scored again to compare.
    """

    cost: Cost
    trained: int
    scored: Scored
    audited: int = 0

    @property
    def num_scored(self) -> int:
        return sum(self.scored.values())

    @property
    def scoring(self) -> dict[str, float]:
        """Operations by precision, of candidates that this run's model scored."""
        nums: Counter[str] = Counter()
        for (backend, precision), num in self.scored.items():
            if backend == "torch" and num:
                nums[precision] += num
        return {precision: _times(num, self.cost.forward) for precision, num in nums.items()}

    @property
    def training(self) -> float:
        return _times(self.trained, self.cost.forward + self.cost.backward)

    def row(self) -> dict[str, float]:
        """Columns of each line of metrics."""
        return {
            "samples_trained": self.trained,
            "samples_scored": self.num_scored,
            "flops_training": self.training,
            "flops_scoring": sum(self.scoring.values()),
        }

    def summary(self) -> dict[str, Any]:
        """For summary.json; `scored_elsewhere` are candidates by backend that the model did not score."""
        elsewhere: Counter[str] = Counter()
        for (backend, _), num in self.scored.items():
            if backend != "torch":
                elsewhere[backend] += num
        return {
            "samples_scored": self.num_scored,
            "scored_elsewhere": dict(elsewhere),
            "flops": {
                "forward_per_sample": self.cost.forward,
                "backward_per_sample": self.cost.backward,
                "training": self.training,
                "scoring": self.scoring,
                "audit": _times(self.audited, self.cost.forward),
            },
        }


def _times(num: int, cost: float) -> float:
    return num * cost if num else 0.0  # nothing costs nothing, also where the cost is unknown


def count_cost(model: nn.Module, source: Source) -> Cost:
    """What the model computes for one sample of this source, without computing it.

    The passes run over a copy on the meta device, whose tensors have shapes and no contents; a model that looks at
    contents is copied to the CPU and gets real samples. Parameters, buffers, gradients, flags of the model and random
    numbers stay as they are. A model that can neither be copied nor run so is reported in the log.
    """
    failures = []
    for device in ("meta", "cpu"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of compiled parts, about the hooks of the counter
                return _count_on(torch.device(device), unwrap(model), source)
        except Exception as error:  # models raise anything, and none of it may cost the run
            failures.append(f"{device}: {type(error).__name__}: {error}")
    log.warning("the model's operations cannot be counted, and stay unknown in all figures (%s)", "; ".join(failures))
    return Cost()


def _count_on(device: torch.device, model: nn.Module, source: Source) -> Cost:
    with torch.random.fork_rng(devices=[]):  # dropout on the CPU draws
        copied = _copied_to(device, model)
        inputs, targets = _batch_on(device, source)
        with device:  # also for tensors that the model makes; and keeps fused layers apart, which hide what they do
            with evaluating(copied), _counter() as scoring:
                per_sample_loss(copied, copied(inputs), targets)
            with _counter() as training:
                per_sample_loss(copied, copied(inputs), targets).mean().backward()
    forward, both = (counter.get_total_flops() / NUM_COUNTED for counter in (scoring, training))
    return Cost(forward, both - forward)


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward})


def _convolution_backward(grad_out: Shape, inputs: Shape, weight: Shape, *more: Any, **_: Any) -> int:
    """As much as the forward pass for each of the two gradients. Torch's own formula forgets that there are groups."""
    is_transposed, output_mask = more[4], more[7]
    num_pixels = math.prod((inputs if is_transposed else grad_out)[2:])
    return sum(output_mask[:2]) * 2 * inputs[0] * num_pixels * math.prod(weight)


def _copied_to(device: torch.device, model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers are on `device`; on the meta device it takes no memory."""
    memo: dict[int, Any] = {
        id(tensor): nn.Parameter(_moved(tensor, device), requires_grad=tensor.requires_grad)
        for tensor in model.parameters()
    }
    memo |= {id(tensor): _moved(tensor, device) for tensor in model.buffers()}
    return copy.deepcopy(model, memo)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return torch.empty_like(tensor, device=device) if device.type == "meta" else tensor.detach().to(device, copy=True)


def _batch_on(device: torch.device, source: Source) -> tuple[Tensor, Tensor]:
    """Prepared inputs and targets. Held-out ones if possible: the feeder may be reading training samples."""
    sample = source.sample
    if device.type == "meta":
        inputs = torch.zeros(NUM_COUNTED, *sample.shape, dtype=sample.dtype)
        targets = torch.zeros(NUM_COUNTED, *sample.target_shape, dtype=torch.int64)
    else:
        split = source.train if source.held_out is None else source.held_out
        inputs, targets = split.fetch(torch.arange(NUM_COUNTED) % len(split))
    return source.prepare(inputs).to(device), targets.to(device)
