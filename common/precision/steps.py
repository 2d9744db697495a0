"""What an int8 pass is made of: each step maps tensors to one tensor, bytes where a Grid says what they stand for."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from common.data.normal import Normal
from common.precision.grid import Grid

WIDE_BYTES = 16


class Quantise:
    """Float32 to bytes."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __call__(self, x: Tensor) -> Tensor:
        return self.grid.quantise(x)


class QuantisePixels:
    """Images of few channels, in float32 or in bytes that `normal` makes float32, to bytes with FEW channels."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.normal: Normal | None = None

    def __call__(self, x: Tensor, words: Tensor | None = None) -> Tensor:
        return self.grid.quantise_pixels(x, words, self.normal if x.dtype == torch.uint8 else None)


class Dequantise:
    """Bytes to float32."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def __call__(self, x: Tensor) -> Tensor:
        return self._grid.dequantise(x)


class Node:
    """A node of the graph as it is: on float32, or on bytes where it only moves them."""

    def __init__(self, node: fx.Node, traced: fx.GraphModule) -> None:
        self.node = node
        self._inputs = node.all_input_nodes
        self._target: Callable[..., Any] | None = None
        name = str(node.target)
        if node.op == "call_module":
            self._target = traced.get_submodule(name)
        elif node.op == "call_function":
            self._target = node.target  # type: ignore[assignment]
        elif node.op == "get_attr":
            path, _, self._name = name.rpartition(".")
            self._owner = traced.get_submodule(path)
        else:
            self._name = "reshape" if name == "view" else name  # channels-last has no such view

    def __call__(self, *values: Any) -> Any:
        if self.node.op == "get_attr":
            return getattr(self._owner, self._name)
        known = dict(zip(self._inputs, values, strict=True))
        args, kwargs = fx.map_arg((self.node.args, self.node.kwargs), known.__getitem__)
        if self._target is not None:
            return self._target(*args, **kwargs)
        return getattr(args[0], self._name)(*args[1:], **kwargs)


class ZeroPad:
    """`F.pad` with zeros, which bytes have at their zero point."""

    def __init__(self, grid: Grid, pad: tuple[int, ...]) -> None:
        self._grid, self._pad = grid, list(pad)
        self.is_of_channels = len(pad) == 6 and not any(pad[:4])

    def __call__(self, x: Tensor) -> Tensor:
        wide = self._widened(x) if self._grid.zero_point == 0 else None
        if wide is None:
            return F.pad(x, self._pad, value=self._grid.zero_point)
        padded = F.pad(wide, [pad // WIDE_BYTES for pad in self._pad[4:]])
        return padded.view(torch.uint8).permute(0, 3, 1, 2)

    def _widened(self, x: Tensor) -> Tensor | None:
        """(B, H, W, C/16) with 16 channels as one number, if only channels are padded; twice as fast to copy."""
        sizes = (x.shape[1], *x.stride()[:1], *x.stride()[2:], x.storage_offset(), *self._pad[4:])
        if not self.is_of_channels or x.ndim != 4 or x.stride(1) != 1 or any(size % WIDE_BYTES for size in sizes):
            return None
        return x.permute(0, 2, 3, 1).view(torch.complex128)


class Relu:
    """ReLU of bytes, which stay on their grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def __call__(self, x: Tensor) -> Tensor:
        return x.clamp_min(self._grid.zero_point) if self._grid.zero_point else x
