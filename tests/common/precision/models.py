"""Models that the tests of precisions share."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def with_statistics(module: Module) -> Module:
    """In eval mode, with BatchNorms as after some training."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, 0, 0.2)
    return module.eval()


class Motley(nn.Module):
    """Operators of many kinds: groups, dilation, ReLU6, in-place, pooling, joins, splits, sums of sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.dilated = nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=2)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.rare = nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")
        self.hidden = nn.Linear(32, 12)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = x + F.relu(self.norm(self.depthwise(x)))
        x = self.dilated(x)
        y = self.pointwise(x)
        y += x
        first, second = F.relu(y).chunk(2, dim=1)
        joined = torch.cat([F.pad(second, (1, 1, 1, 1)), F.pad(first, (1, 1, 1, 1))], 1)
        z = F.silu(self.rare(joined))
        pooled = torch.cat([F.adaptive_avg_pool2d(z, 1), F.adaptive_avg_pool2d(joined, 1)], 1)
        return self.head(self.drop(F.relu(self.hidden(pooled.view(pooled.shape[0], -1)))))


class Tokens(nn.Module):
    """(B, L, F) features: its BatchNorm is over the L tokens, and not over what the linear layer before it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 7)
        self.norm = nn.BatchNorm1d(7)
        self.head = nn.Linear(7, 5)

    def forward(self, inputs_BLF: Tensor) -> Tensor:
        return self.head(self.norm(self.mix(inputs_BLF)).relu().mean(1))


class Bounded(nn.Module):
    """A ReLU6 that clips most of its inputs, joined with values far above 6."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        nn.init.uniform_(self.low.weight, 0, 4)
        nn.init.uniform_(self.high.weight, 0, 40)
        self.mix = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        joined = torch.cat([F.relu6(self.low(inputs_BCHW)), F.relu(self.high(inputs_BCHW))], 1)
        return self.head(F.relu(self.mix(joined / torch.tensor([1.0] * 8 + [60.0] * 8).view(1, 16, 1, 1))).mean((2, 3)))
