"""One layer with what belongs to it, on bytes: one operator of oneDNN, called directly."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.precision.bank import Int8Weights, Layer
from common.precision.grid import Grid
from common.precision.patterns import Group


class Int8Layer:
    """relu(norm(layer(x)) + other) of bytes.

    The scales of inputs and outputs are part of the weights' scales: the operator then multiplies once for each value,
    and clips at a zero point of 0, which is the ReLU.

    Args:
        x: what its bytes stand for.
        out: what the bytes of its result stand for; None gives float32.
        other: what the bytes of the summand stand for.
        num_spare: channels that x has beyond those that the layer reads.
    """

    def __init__(
        self, group: Group, x: Grid, out: Grid | None, other: Grid | None = None, *, num_spare: int = 0
    ) -> None:
        assert other is None or out is not None, "a sum of bytes is bytes"
        self.layer: Layer = group.layer
        self.may_overwrite = False  # the summand, which the operator leaves the result in
        self._x, self._out, self._other = x, out, other
        self._bound = group.relu
        self._num_spare = num_spare
        layer = group.layer.layer
        self._is_linear = isinstance(layer, nn.Linear)
        self._where: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], group.layer.num_outputs)
        if isinstance(layer, nn.Conv2d):
            self._where = (list(layer.stride), list(group.padding), list(layer.dilation), layer.groups)
        # Kernel with dilation, stride and padding of a convolution that gives bytes.
        self.window: tuple[tuple[int, ...], ...] | None = None
        if out is not None and not self._is_linear:
            stride, padding, dilation, _ = self._where
            kernel = layer.kernel_size if isinstance(layer, nn.Conv2d) else (1, 1)
            reach = tuple(step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True))
            self.window = (reach, tuple(stride), tuple(padding))
        self._before: tuple[Any, ...] = ()
        self._after: tuple[Any, ...] = ()

    @property
    def zero_point(self) -> int:
        """The byte that stands for 0 in its results."""
        return self._out.zero_point if self._out is not None else 0

    @property
    def padding_byte(self) -> int:
        """The byte that stands for 0 in what it reads."""
        return self._x.zero_point

    def load(self, weights: Int8Weights) -> None:
        """Pack weights for the grids as they are now."""
        out_scale, out_zero_point, dtype = 1.0, 0, torch.float32
        if self._out is not None:
            out_scale, out_zero_point, dtype = self._out.scale, self._out.zero_point, torch.uint8
        clips = self._out is not None and out_zero_point == 0
        unary = "none" if self._bound is None or clips else "relu"
        scales = weights.scales * (self._x.scale / out_scale)
        bias = weights.bias / out_scale
        zero_points = torch.zeros(len(scales), dtype=torch.int64)
        if self._is_linear:
            packed = torch.ops.onednn.qlinear_prepack(weights.values, None)
        else:
            values = F.pad(weights.values, [0, 0, 0, 0, 0, self._num_spare]) if self._num_spare else weights.values
            packed = torch.ops.onednn.qconv_prepack(values, scales, 1.0, self._x.zero_point, *self._where, None)
        # Arguments of the operators, in their order: what follows x, and what follows the summand, if there is one.
        self._before = (1.0, self._x.zero_point, packed, scales, zero_points)
        self._after = (bias, *(() if self._is_linear else self._where), 1.0, out_zero_point, dtype)
        if self._other is not None:
            self._after = (*self._after, self._other.scale / out_scale, self._other.zero_point, "sum", 1.0)
        self._after = (*self._after, unary, [], "")

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        if self._is_linear:
            y = torch.ops.onednn.qlinear_pointwise.default(x, *self._before, *self._after)
        elif other is None:
            x = x.contiguous(memory_format=torch.channels_last)
            y = torch.ops.onednn.qconv2d_pointwise.default(x, *self._before, *self._after)
        else:
            x = x.contiguous(memory_format=torch.channels_last)
            other = other.contiguous(memory_format=torch.channels_last) if self.may_overwrite else _copy(other)
            y = torch.ops.onednn.qconv2d_pointwise.binary(x, *self._before, other, *self._after)
        if self._out is None and self._bound is not None and self._bound < float("inf"):
            y = y.clamp_max_(self._bound)
        return y


def _copy(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
