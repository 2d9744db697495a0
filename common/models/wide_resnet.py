"""Wide residual nets, after Zagoruyko & Komodakis 2016, arXiv:1605.07146. No dropout.

B = batch, C = channels, H, W = height and width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from common.models.initialise import initialise

STAGE_CHANNELS = (16, 32, 64)


class PreActivationBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice; a 1x1 convolution as the shortcut where the number of channels changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        projects = in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if projects else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        activated = F.relu(self.norm1(x_BCHW))
        residual = self.conv1(activated)
        residual = self.conv2(F.relu(self.norm2(residual)))
        return residual + (x_BCHW if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """Three stages of n blocks with 16k, 32k and 64k channels at full, half and quarter size; depth = 6n + 4.

    Takes (B, in_channels, H, W) float32 of any H and W, gives (B, num_classes) logits.

    Args:
        widening: the paper's k, >= 1.

    Raises:
        ValueError: `depth` is not 6n + 4 with n >= 1, or `widening` < 1.
    """

    def __init__(self, depth: int, widening: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 4, 6)
        if num_blocks < 1 or rest:
            raise ValueError(f"depth must be 6n+4 with n >= 1, got {depth}")
        if widening < 1:
            raise ValueError(f"widening must be at least 1, got {widening}")
        previous = STAGE_CHANNELS[0]
        self.conv = nn.Conv2d(in_channels, previous, 3, padding=1, bias=False)
        blocks = []
        for stage, base in enumerate(STAGE_CHANNELS):
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(PreActivationBlock(previous, base * widening, stride))
                previous = base * widening
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(previous)
        self.head = nn.Linear(previous, num_classes)
        initialise(self)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        x = self.blocks(self.conv(inputs_BCHW))
        x = F.relu(self.norm(x))
        return self.head(x.mean(dim=(2, 3)))
