"""Residual nets for small images, after He et al. 2016, arXiv:1512.03385, section 4.2.

B = batch, C = channels, H, W = height and width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from common.models.initialise import initialise

STAGE_CHANNELS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.num_padded = channels - in_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        residual = F.relu(self.norm1(self.conv1(x_BCHW)))
        residual = self.norm2(self.conv2(residual))
        return F.relu(residual + self._shortcut(x_BCHW))

    def _shortcut(self, x_BCHW: Tensor) -> Tensor:
        """The paper's option A: every second pixel, and zeros for the channels that are new."""
        if self.num_padded == 0 and self.stride == 1:
            return x_BCHW
        return F.pad(x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.num_padded))


class CifarResNet(nn.Module):
    """Three stages of n blocks with 16, 32 and 64 channels at full, half and quarter size; depth = 6n + 2.

    Takes (B, in_channels, H, W) float32 of any H and W, gives (B, num_classes) logits.

    Raises:
        ValueError: `depth` is not 6n + 2 with n >= 1.
    """

    def __init__(self, depth: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        if num_blocks < 1 or rest:
            raise ValueError(f"depth must be 6n+2 with n >= 1, got {depth}")
        previous = STAGE_CHANNELS[0]
        self.conv = nn.Conv2d(in_channels, previous, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(previous)
        blocks = []
        for channels in STAGE_CHANNELS:
            for _ in range(num_blocks):
                blocks.append(BasicBlock(previous, channels, stride=1 if channels == previous else 2))
                previous = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(previous, num_classes)
        initialise(self)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(inputs_BCHW)))
        x = self.blocks(x)
        return self.head(x.mean(dim=(2, 3)))
