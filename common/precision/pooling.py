"""Pooling of bytes, which torch has for floats only."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.precision.grid import Grid

LARGEST_KERNEL = 64  # pixels that the mean over images takes as one kernel


class Averaged:
    """A mean or an average pooling of bytes, as float32: averages commute with what the bytes stand for."""

    def __init__(self, grid: Grid, compute: Callable[..., Any]) -> None:
        self._grid, self._compute = grid, compute

    def __call__(self, x: Tensor, *others: Any) -> Tensor:
        return self._grid.dequantise(self._compute(x.float(), *others))


class ImageMean:
    """The mean over the pixels of (B, C, H, W) bytes, as float32: of small images a convolution of each channel."""

    def __init__(self, grid: Grid, keepdim: bool) -> None:
        self._grid, self._keepdim = grid, keepdim
        self._packed: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        if height * width > LARGEST_KERNEL or channels == 1:
            return self._grid.dequantise(x.float().mean((2, 3), keepdim=self._keepdim))
        means = self._windows(x, (height, width), (1, 1))
        return self._grid.dequantise(means if self._keepdim else means.flatten(1))

    def of_strips(self, images: Tensor, width: int, num: int) -> Tensor:
        """The means of the first `num` of images side by side.

        Args:
            images: (G, H, N, W + gap, C), a view of channels-last strips.
            width: W.
        """
        _, height, _, pitch, channels = images.shape
        if height * width > LARGEST_KERNEL or channels == 1:
            means = images[:, :, :, :width].float().mean((1, 3)).flatten(0, 1)
        else:
            means = self._windows(images.flatten(2, 3).permute(0, 3, 1, 2), (height, width), (1, pitch))
            means = means.permute(0, 3, 1, 2).reshape(-1, channels)
        means = self._grid.dequantise(means[:num])
        return means[:, :, None, None] if self._keepdim else means

    def _windows(self, x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
        """(B, C, H', W') float32 means of the bytes in windows of each channel."""
        channels = x.shape[1]
        where = (list(stride), [0, 0], [1, 1], channels)
        if (shape := (channels, *kernel, *stride)) not in self._packed:
            ones = torch.ones(channels, 1, *kernel, dtype=torch.int8)
            scales = torch.full((channels,), 1 / (kernel[0] * kernel[1]))
            packed = torch.ops.onednn.qconv_prepack(ones, scales, 1.0, 0, *where, None)
            self._packed[shape] = (packed, scales, torch.zeros(channels, dtype=torch.int64))
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, 0, *self._packed[shape], None, *where, 1.0, 0, torch.float32, "none", [], ""
        )


class MaxPool:
    """Max pooling of (B, C, H, W) bytes, first along rows, then along columns; torch has it for floats only."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        self._kernel, self._stride, self._padding = kernel, stride, padding

    def __call__(self, x: Tensor) -> Tensor:
        (top, left) = self._padding
        if top or left:
            x = F.pad(x, [left, left, top, top])  # 0 is the least of bytes, whatever it stands for
        for dim in (2, 3):
            kernel, stride = self._kernel[dim - 2], self._stride[dim - 2]
            length = (x.shape[dim] - kernel) // stride * stride + 1
            parts = [x.narrow(dim, start, length) for start in range(kernel)]
            parts = [part[:, :, ::stride] if dim == 2 else part[:, :, :, ::stride] for part in parts]
            x = parts[0]
            for part in parts[1:]:
                x = torch.maximum(x, part)
        return x
