"""BatchNorm statistics of uniform samples, for a model that was trained on selected ones.

The running statistics of training follow the batches, and hard batches are not what the model will be used on.
"""

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.data.source import Source
from common.models import evaluating, unwrap
from common.order import Order


def recalibrated(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy of the model whose running statistics are the means of those of `batches`, all counting alike.

    Everything but BatchNorm is in eval mode meanwhile, so no dropout thins the activations; parameters, flags and the
    original stay as they are. A layer in eval mode within a model that trains is frozen, and keeps its statistics.

    Args:
        model: wrapped or not. The copy is not.
        batches: prepared inputs, (B, ...) on the model's device, uniform over the data and not augmented; at least one,
            of more than one sample, and best of one size. See `recalibration_inputs`.

    Returns:
        The model itself where it has no running statistics to estimate; then no batch is taken.

    Raises:
        ValueError: there are no batches.
    """
    if not _running_statistics(model):
        return model
    copied = copy.deepcopy(unwrap(model))
    layers = _running_statistics(copied)
    flags = [(layer, layer.training, layer.momentum) for layer in layers]
    num_batches = 0
    with evaluating(copied), torch.no_grad():
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative mean
            layer.training = True
        for inputs in batches:
            copied(inputs)
            num_batches += 1
        for layer, _, momentum in flags:
            layer.momentum = momentum
    for layer, training, _ in flags:
        layer.training = training
    if num_batches == 0:
        raise ValueError("running statistics cannot be estimated from no batches")
    return copied


def recalibration_inputs(
    source: Source, num: int, device: torch.device | str, seed: int, *, batch_size: int = 256
) -> Iterator[Tensor]:
    """Prepared training inputs, uniform and not augmented, in batches of one size; of an order of their own.

    Args:
        num: samples in all, > 0; rounded down to whole batches. Past the number that there are, they come again.
        seed: the run's seed; the same samples come at every call.

    Yields:
        (batch_size, ...) on `device`; (num, ...) where `num` is smaller.

    Raises:
        DataError: this process cannot read the training data.
    """
    size = min(num, batch_size)
    order = Order(len(source.train), seed, "recalibration")
    for start in range(0, num - size + 1, size):
        inputs, _ = source.train.fetch(torch.from_numpy(order.ids(np.arange(start, start + size))))
        yield source.prepare(inputs.to(device))


def _running_statistics(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics and are not frozen."""
    model = unwrap(model)
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and module.running_mean is not None
        and (module.training or not model.training)
    ]
