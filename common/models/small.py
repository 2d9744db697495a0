"""Networks small enough that a step on one core takes milliseconds.

B = batch, C = channels, H, W = height and width, F = features.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from common.models.initialise import initialise

LARGEST_STEM, SMALLEST_SIDE = 32, 4  # pixels
FIRST_CHANNELS, MOST_CHANNELS = 16, 128
HIDDEN_FEATURES = 128


class SmallConvNet(nn.Module):
    """3x3 convolutions that halve the image until it is at most 4x4, one more without padding, the mean over pixels.

    The first convolution keeps the size of images of up to 32x32. It has 16 channels, and each further one twice as
    many up to 128: digits pass 16, 32 and 64. Takes (B, C, H, W) float32 of any H and W, gives (B, num_classes) logits.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        previous, height, width = shape
        strides = [1 if max(height, width) <= LARGEST_STEM else 2]
        height, width = _shrunk(height, width, strides[0])
        while max(height, width) > SMALLEST_SIDE:
            strides.append(2)
            height, width = _shrunk(height, width, 2)
        last_padding = 0 if min(height, width) >= 3 else 1
        layers: list[nn.Module] = []
        for index, stride in enumerate([*strides, 1]):
            channels = min(FIRST_CHANNELS * 2**index, MOST_CHANNELS)
            padding = last_padding if index == len(strides) else 1
            layers += [nn.Conv2d(previous, channels, 3, stride, padding, bias=False), nn.BatchNorm2d(channels)]
            layers += [nn.ReLU(inplace=True)]
            previous = channels
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(previous, num_classes)
        initialise(self)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        return self.head(self.layers(inputs_BCHW).mean(dim=(2, 3)))


def _shrunk(height: int, width: int, stride: int) -> tuple[int, int]:
    """Size after a padded 3x3 convolution."""
    return -(-height // stride), -(-width // stride)


class SmallMLP(nn.Module):
    """Two linear layers with 128 features between them. Takes (B, ...) float32, flattened; gives (B, num_classes)."""

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(math.prod(shape), HIDDEN_FEATURES)
        self.head = nn.Linear(HIDDEN_FEATURES, num_classes)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden_BF = F.relu(self.hidden(inputs.reshape(inputs.shape[0], -1)))
        return self.head(hidden_BF)
