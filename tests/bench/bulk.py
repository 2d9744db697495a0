"""Models of a given size that compute next to nothing: what pushing weights is timed with."""

import math

from torch import Tensor, nn

from common.data.source import SampleSpec

LAYERS = {1: (256, 15), 25: (1024, 24), 100: (2048, 24)}  # millions of parameters: width and number of layers


class Bulk(nn.Module):
    """Layers of equal width with BatchNorm between them: some 5 tensors a layer, as residual nets have them."""

    def __init__(self, num_inputs: int, num_classes: int, width: int, num_layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(num_inputs, width)
        layers = [nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()) for _ in range(num_layers)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.first(inputs.flatten(1))))
        return logits


def million_1(sample: SampleSpec) -> Bulk:
    """1.0 million parameters."""
    return _bulk(sample, 1)


def million_25(sample: SampleSpec) -> Bulk:
    """25 million parameters."""
    return _bulk(sample, 25)


def million_100(sample: SampleSpec) -> Bulk:
    """101 million parameters."""
    return _bulk(sample, 100)


def _bulk(sample: SampleSpec, millions: int) -> Bulk:
    width, num_layers = LAYERS[millions]
    return Bulk(math.prod(sample.shape), sample.num_classes, width, num_layers)
