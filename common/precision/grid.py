"""Bytes that stand for numbers: which numbers, and how floats become such bytes."""

import torch
from torch import Tensor

from common.data.normal import Normal

LEVELS = 255
IN_CACHE = 64  # images at a time
FEW = 4  # bytes of one integer


class Grid:
    """Byte q stands for (q - zero_point) * scale; 0 is exact. Shared by values that pass through bytes unchanged.

    Attributes:
        scale: > 0.
        zero_point: in [0, 255]; 0 where no value is negative.
    """

    def __init__(self) -> None:
        self.scale, self.zero_point = 1.0, 0

    def cover(self, low: float, high: float) -> None:
        """Take the numbers from `low` to `high`, widened to hold 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        self.scale = max((high - low) / LEVELS, 1e-12)
        self.zero_point = min(LEVELS, max(0, round(-low / self.scale)))

    def quantise(self, x: Tensor) -> Tensor:
        """Float to uint8, rounded and clipped; images become channels-last."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self._levels(x).to(torch.uint8)

    def quantise_pixels(self, x: Tensor, words: Tensor | None = None, normal: Normal | None = None) -> Tensor:
        """(B, C, H, W) images of up to 3 channels to (B, 4, H, W) uint8, channels-last; the fourth's bytes are 0.

        Bytes are put side by side by arithmetic, exact in float32; a copy with strides takes longer.

        Args:
            words: (B, H, W) int32 to hold them, one pixel each; any strides but the last, which is 1.
            normal: where x is uint8 and not float: it is normalised here, so that the floats stay in the cache.
        """
        if words is None:
            words = torch.empty(len(x), *x.shape[2:], dtype=torch.int32)
        for part, out in zip(x.split(IN_CACHE), words.split(IN_CACHE), strict=True):
            levels = (self._levels(part) if normal is None else self._levels_of_bytes(part, normal)).floor_()
            word = levels[:, 0]
            for channel in range(1, x.shape[1]):
                word = word.add_(levels[:, channel], alpha=256**channel)
            out.copy_(word)
        return words[..., None].view(torch.uint8).permute(0, 3, 1, 2)

    def _levels(self, x: Tensor) -> Tensor:
        """In [0, 256), to be rounded down."""
        offset = torch.full((), self.zero_point + 0.5)
        return torch.add(offset, x, alpha=1 / self.scale).clamp_(0, LEVELS)

    def _levels_of_bytes(self, x: Tensor, normal: Normal) -> Tensor:
        scale, shift = normal
        own = Normal(scale / self.scale, shift / self.scale + (self.zero_point + 0.5))
        return own.prepare(x).clamp_(0, LEVELS)

    def dequantise(self, x: Tensor) -> Tensor:
        """Uint8 to float32; also of sums and means of such bytes, where the weights add up to 1."""
        x = x.float()
        if self.zero_point:
            x = x.sub_(self.zero_point)
        return x.mul_(self.scale)
