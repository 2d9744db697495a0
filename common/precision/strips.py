"""Small images of a batch side by side: oneDNN's 8-bit convolutions take a third less time on long rows.

A strip holds N images of one height, with a gap after each that is as good as padding: its bytes stand for 0 wherever a
convolution reads them. Gaps are computed, too: narrow ones are widened where a convolution of stride 2 would come out
of step with the images, if a copy costs less than wide ones all the way. Results are the same bit by bit.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from common.precision.grid import FEW
from common.precision.int8_layer import Int8Layer
from common.precision.lowering import Call
from common.precision.pooling import ImageMean
from common.precision.steps import Node, Quantise, QuantisePixels, Relu, ZeroPad

GAPS = range(1, 17)  # pixels; a convolution of stride 2 halves them
WIDENING_COST = 0.15  # of a layer's time
STRIP_WIDTH = 4608  # pixels
WIDEST_IMAGE = 64


@dataclass(frozen=True)
class Strip:
    """Where the images of a strip are, in pixels."""

    height: int
    width: int
    gap: int

    def after(self, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> "Strip | None":
        """Of what a window makes of these images; None where they would not stay apart, or not in step.

        Args:
            kernel: height and width from the first pixel to the last, with dilation.
        """
        if padding[1] > self.gap or (self.width + self.gap) % stride[1]:
            return None
        if not 0 < kernel[1] - 2 * padding[1] <= stride[1]:  # the last image of a strip would get fewer pixels
            return None
        height = (self.height + 2 * padding[0] - kernel[0]) // stride[0] + 1
        width = (self.width + 2 * padding[1] - kernel[1]) // stride[1] + 1
        gap = (self.width + self.gap) // stride[1] - width
        return Strip(height, width, gap) if height > 0 and width > 0 and gap >= 0 else None

    def in_step(self, stride: int) -> "Strip":
        """With a gap after which the next image's first pixel is one that a window of this stride starts from."""
        return Strip(self.height, self.width, self.gap + -(self.width + self.gap) % stride)

    def widened(self, x: Tensor, wide: "Strip", value: int) -> Tensor:
        """The same images with the wider gaps of `wide`; what is new is filled."""
        pixels, pitch = self.images(x), self.width + self.gap
        laid = torch.empty(*pixels.shape[:3], wide.width + wide.gap, x.shape[1], dtype=torch.uint8)
        laid[:, :, :, :pitch] = pixels
        laid[:, :, :, pitch:].fill_(value)
        return laid.flatten(2, 3).permute(0, 3, 1, 2)

    def images(self, x: Tensor) -> Tensor:
        """(G, C, H, N * (W + gap)) channels-last to a view (G, H, N, W + gap, C)."""
        return x.permute(0, 2, 3, 1).unflatten(2, (-1, self.width + self.gap))

    def clear_gaps(self, x: Tensor, value: int) -> None:
        """Fill the gaps, in place."""
        if self.gap == 0:
            return
        pixels = self.images(x)
        if value == 0 and x.shape[1] % 16 == 0:
            pixels = pixels.view(torch.complex128)  # 16 bytes at a time
        pixels[:, :, :, self.width :].fill_(value)


@dataclass
class Layout:
    """What images side by side look like in a pass.

    Attributes:
        written: slots to their strips, as the steps leave them.
        widened: outputs of steps to the strip that they want their first input widened to before they run.
        cost: of the gaps, in the time of a layer.
    """

    written: dict[int, Strip] = field(default_factory=dict)
    widened: dict[int, Strip] = field(default_factory=dict)
    cost: float = 0.0


def find_layout(calls: list[Call], source: int, height: int, width: int) -> Layout | None:
    """The cheapest; None where a step would mix images.

    Args:
        source: the slot of the images in float32, (B, C, height, width).
    """
    if width > WIDEST_IMAGE:
        return None
    found = [_followed(calls, source, Strip(height, width, gap)) for gap in GAPS]
    return min((layout for layout in found if layout is not None), key=lambda layout: layout.cost, default=None)


def side_by_side(x: Tensor, strip: Strip, value: int) -> Tensor:
    """(B, C, H, W) bytes, channels-last, to (G, C, H, N * (W + gap)): G strips of N images, the last ones empty.

    Args:
        value: of the gaps, and of the images that are missing in the last strip.
    """
    laid = _blank(len(x), strip, x.shape[1], value)
    for images, into in zip(x.permute(0, 2, 3, 1).split(laid.shape[2]), laid, strict=True):
        into[:, : len(images), : strip.width] = images.transpose(0, 1)
    return laid.flatten(2, 3).permute(0, 3, 1, 2)


def pixels_side_by_side(x: Tensor, strip: Strip, quantise: QuantisePixels) -> Tensor:
    """Images of few channels as `side_by_side` lays what `quantise` makes of them."""
    laid = _blank(len(x), strip, FEW, quantise.grid.zero_point)
    for images, into in zip(x.split(laid.shape[2]), laid.view(torch.int32).squeeze(4), strict=True):
        quantise(images, into[:, : len(images), : strip.width].transpose(0, 1))
    return laid.flatten(2, 3).permute(0, 3, 1, 2)


def _blank(num: int, strip: Strip, channels: int, value: int) -> Tensor:
    """(G, H, N, W + gap, C) bytes for `num` images."""
    num_strips = -(-num * (strip.width + strip.gap) // STRIP_WIDTH)
    num_images = -(-num // num_strips)
    num_strips = -(-num // num_images)
    shape = (num_strips, strip.height, num_images, strip.width + strip.gap, channels)
    return torch.full(shape, value, dtype=torch.uint8)


def _followed(calls: list[Call], source: int, first: Strip) -> Layout | None:
    layout = Layout()
    strips: dict[int, Strip] = {}  # by slot, as the next step finds them
    for call in calls:
        if isinstance(call.compute, Quantise | QuantisePixels) and call.inputs == [source]:
            strips[call.output] = layout.written[call.output] = first
        elif any(slot in strips for slot in call.inputs):
            if isinstance(call.compute, ImageMean):
                continue
            if call.inputs[0] not in strips:
                return None
            read = strips[call.inputs[0]]
            after = _after(call.compute, read)
            if after is None and isinstance(call.compute, Int8Layer) and call.compute.window is not None:
                wide = read.in_step(call.compute.window[1][1])
                after = _after(call.compute, wide)
                strips[call.inputs[0]] = layout.widened[call.output] = wide
                layout.cost += WIDENING_COST
            if after is None or any(strips.get(slot) != after for slot in call.inputs[1:]):
                return None
            strips[call.output] = layout.written[call.output] = after
            if isinstance(call.compute, Int8Layer):
                layout.cost += after.gap / after.width
    return layout if strips else None


def _after(compute: Any, strip: Strip) -> Strip | None:
    if isinstance(compute, Int8Layer):
        return strip.after(*compute.window) if compute.window is not None else None
    if isinstance(compute, Relu) or (isinstance(compute, ZeroPad) and compute.is_of_channels):
        return strip
    if isinstance(compute, Node) and compute.node.target is operator.getitem:
        index, every = compute.node.args[1], slice(None)
        if isinstance(index, tuple) and len(index) == 4 and index[:2] == (every, every):
            steps = [
                part.step or 1 for part in index[2:] if isinstance(part, slice) and part == slice(None, None, part.step)
            ]
            return strip.after((1, 1), steps, (0, 0)) if len(steps) == 2 else None
    return None
