"""A traced model as a list of steps on float32 and on bytes."""

from typing import Any

from torch import Tensor, fx, nn

from common.data.normal import Normal
from common.precision.bank import Bank
from common.precision.int8_layer import Int8Layer
from common.precision.lowering import Call, Lowered
from common.precision.patterns import Shapes
from common.precision.pooling import ImageMean
from common.precision.ranges import ranges_of
from common.precision.steps import Quantise, QuantisePixels
from common.precision.strips import Layout, Strip, find_layout, pixels_side_by_side, side_by_side


class Program:
    """Computes what the graph computes, with groups of nodes on bytes.

    Args:
        traced: one tensor in; kept, and run in float32 to calibrate.
        shapes: of its tensors, for some batch.
        head: stays in float32.
        normal: of inputs in bytes; None where there are none.

    Attributes:
        takes_bytes: whether inputs may also be images in bytes, before they are normalised.
        is_finite: whether all weights that were last quantised are; with others the pass has no meaning.
    """

    def __init__(self, traced: fx.GraphModule, shapes: Shapes, head: nn.Linear, normal: Normal | None = None) -> None:
        self._traced = traced
        self._lowered = Lowered(traced, shapes, head)
        self._layers = [call.compute for call in self._lowered.calls if isinstance(call.compute, Int8Layer)]
        self._bank = Bank([each.layer for each in self._layers])
        self.is_finite = False
        first = [call.compute for call in self._lowered.calls if self._lowered.input in call.inputs]
        pixels = [compute for compute in first if isinstance(compute, QuantisePixels)]
        self.takes_bytes = normal is not None and len(pixels) == len(first) == 1
        if self.takes_bytes:
            pixels[0].normal = normal
        self._layouts: dict[tuple[int, int], Layout | None] = {}  # by height and width
        self._watched = {node for family in self._lowered.families for node in family.nodes}

    @property
    def num_layers(self) -> int:
        """Operators on bytes."""
        return len(self._layers)

    def calibrate(self, inputs: Tensor) -> None:
        """Set what bytes stand for by a float32 pass; `refresh` is due after it."""
        ranges = ranges_of(self._traced, inputs, self._watched)
        for family in self._lowered.families:
            seen = [ranges[node] for node in family.nodes if node in ranges]
            low, high = min((low for low, _ in seen), default=0.0), max((high for _, high in seen), default=1.0)
            for grid in family.grids:
                grid.cover(low, high)

    def refresh(self) -> None:
        """Quantise and pack the present weights."""
        self.is_finite = self._bank.is_finite()
        if self.is_finite:
            for layer, weights in zip(self._layers, self._bank.quantised(), strict=True):
                layer.load(weights)

    def __call__(self, inputs: Tensor) -> Any:
        layout = self._layout_for(inputs)
        strips: dict[int, Strip] = {}
        slots: list[Any] = [None] * self._lowered.num_slots
        slots[self._lowered.input] = inputs
        for call in self._lowered.calls:
            if layout is not None and (wide := layout.widened.get(call.output)) is not None:
                assert isinstance(call.compute, Int8Layer), "only a convolution asks for wider gaps"
                slot = call.inputs[0]
                slots[slot] = strips[slot].widened(slots[slot], wide, call.compute.padding_byte)
                strips[slot] = wide
            values = [slots[index] for index in call.inputs]
            if layout is None:
                slots[call.output] = call.compute(*values)
            else:
                if call.output in layout.written:
                    strips[call.output] = layout.written[call.output]
                slots[call.output] = _on_strips(call, values, strips, len(inputs))
            for index in call.dead:
                slots[index] = None
        return self._lowered.result(slots)

    def _layout_for(self, inputs: Tensor) -> Layout | None:
        """How images of this size go side by side, if that is possible with every step."""
        if inputs.ndim != 4 or len(inputs) < 2:
            return None
        height, width = inputs.shape[2:]
        if (height, width) not in self._layouts:
            self._layouts[height, width] = find_layout(self._lowered.calls, self._lowered.input, height, width)
        return self._layouts[height, width]


def _on_strips(call: Call, values: list[Any], strips: dict[int, Strip], num: int) -> Any:
    """A step's result, with images side by side where the slot is one of strips."""
    if isinstance(call.compute, ImageMean) and call.inputs[0] in strips:
        strip = strips[call.inputs[0]]
        return call.compute.of_strips(strip.images(values[0]), strip.width, num)
    if call.output not in strips:
        return call.compute(*values)
    strip = strips[call.output]
    if isinstance(call.compute, QuantisePixels):
        return pixels_side_by_side(values[0], strip, call.compute)
    result = call.compute(*values)
    if isinstance(call.compute, Quantise):
        return side_by_side(result, strip, call.compute.grid.zero_point)
    if isinstance(call.compute, Int8Layer):
        strip.clear_gaps(result, call.compute.zero_point)
    return result
