"""How images in bytes become a network's input."""

from typing import NamedTuple

import torch
from torch import Tensor


class Normal(NamedTuple):
    """x * scale + shift, (C, 1, 1) float32 each."""

    scale: Tensor
    shift: Tensor

    def prepare(self, x: Tensor) -> Tensor:
        """(B, C, H, W) uint8 to float32."""
        # mul_ and add_ rather than addcmul: a fused multiply-add rounds differently in vector bodies and their tails.
        return x.to(torch.float32).mul_(self.scale).add_(self.shift)
