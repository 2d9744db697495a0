"""What values a traced model's activations take, seen in one float32 pass."""

import math
from collections.abc import Collection
from typing import Any

from torch import Tensor, fx


class _Watching(fx.Interpreter):
    def __init__(self, traced: fx.GraphModule, watched: Collection[fx.Node]) -> None:
        super().__init__(traced)
        self.watched = watched
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.ranges: dict[fx.Node, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
            if n in self.watched and result.numel():
                self.ranges[n] = _range_of(result)
        return result


def shapes_of(traced: fx.GraphModule, inputs: Tensor) -> dict[fx.Node, tuple[int, ...]]:
    """Shapes of all tensors of the graph for these inputs."""
    watching = _Watching(traced, ())
    watching.run(inputs)
    return watching.shapes


def ranges_of(
    traced: fx.GraphModule, inputs: Tensor, watched: Collection[fx.Node]
) -> dict[fx.Node, tuple[float, float]]:
    """The least and the largest value of each watched activation; finite.

    All of the range: cutting off the farthest values (percentiles, least square error) selects less alike, or no more.
    """
    watching = _Watching(traced, watched)
    watching.run(inputs)
    return watching.ranges


def _range_of(x: Tensor) -> tuple[float, float]:
    low, high = (extreme.item() for extreme in x.float().aminmax())
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    values = x[x.isfinite()].float()
    return (values.min().item(), values.max().item()) if values.numel() else (0.0, 0.0)
