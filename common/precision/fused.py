"""Convolution, folded BatchNorm, addition and ReLU as one operator. N = samples, C = channels, H, W = height, width."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.precision.trace import folded

ONEDNN_DTYPES = (torch.float32, torch.bfloat16)


@dataclass
class Group:
    """relu(norm(conv(x)) + other), in the nodes of a graph that one operator replaces; the last gives its value.

    Attributes:
        norm, other, relu: None or False where there is none.
    """

    conv: nn.Conv2d
    norm: _BatchNorm | None
    nodes: list[fx.Node]
    other: fx.Node | None = None
    relu: bool = False


class FusedConv(nn.Module):
    """A group with weights of its own, in `dtype`, which follow the master's when told to.

    On a CPU it is oneDNN's fused operator with weights packed once a refresh; elsewhere torch's convolution, whose
    weights keep their addresses.
    """

    def __init__(self, group: Group, dtype: torch.dtype) -> None:
        super().__init__()
        self._master = (group.conv, group.norm)  # in a tuple: the parameters stay the master's alone
        self._relu = group.relu
        self._dtype = dtype
        conv = group.conv
        self._padding = list(cast(tuple[int, ...], conv.padding))
        self._stride, self._dilation, self._groups = list(conv.stride), list(conv.dilation), conv.groups
        self._packs = (
            conv.weight.device.type == "cpu" and dtype in ONEDNN_DTYPES and torch.backends.mkldnn.is_available()
        )
        self._weight, self._bias = self._prepared()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the master's parameters, in place where a captured graph may hold the addresses."""
        weight, bias = self._prepared()
        if self._packs:
            self._weight, self._bias = weight, bias
        else:
            self._weight.copy_(weight)
            self._bias.copy_(bias)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        if other is None:
            return self._convolved(x, self._relu)
        if other.shape == self._shape_of(x):
            return self._added(x, other.to(self._dtype))
        y = self._convolved(x, relu=False) + other
        return y.relu_() if self._relu else y

    def _prepared(self) -> tuple[Tensor, Tensor]:
        weight, bias = folded(*self._master)
        bias = bias.to(self._dtype, copy=True)
        if not self._packs:
            return weight.to(self._dtype, memory_format=torch.channels_last, copy=True), bias
        where = (self._padding, self._stride, self._dilation, self._groups)
        return torch.ops.mkldnn._reorder_convolution_weight(weight.to(self._dtype), *where, None), bias

    def _convolved(self, x: Tensor, relu: bool) -> Tensor:
        x = x.to(self._dtype)
        if self._packs:
            where = (self._padding, self._stride, self._dilation, self._groups)
            unary = "relu" if relu else "none"
            return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *where, unary, [], "")
        y = F.conv2d(x, self._weight, self._bias, self._stride, self._padding, self._dilation, self._groups)
        return y.relu_() if relu else y

    def _added(self, x: Tensor, other: Tensor) -> Tensor:
        if self._packs:
            where = (self._padding, self._stride, self._dilation, self._groups)
            unary = "relu" if self._relu else None
            return torch.ops.mkldnn._convolution_pointwise.binary(
                x.to(self._dtype), other, self._weight, self._bias, *where, "add", None, unary, [], None
            )
        y = self._convolved(x, relu=False).add_(other)
        return y.relu_() if self._relu else y

    def _shape_of(self, x: Tensor) -> tuple[int, ...]:
        """(N, C, H, W) of the convolution's output for (N, C', H', W')."""
        conv = self._master[0]
        sides = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, padding, dilation, kernel, stride in zip(
                x.shape[2:], self._padding, self._dilation, conv.kernel_size, self._stride, strict=True
            )
        )
        return (len(x), conv.out_channels, *sides)
