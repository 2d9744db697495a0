"""Small images of a batch side by side: oneDNN's 8-bit convolutions take a third less time on long rows.

A strip holds N images of one height, with a gap after each that is as good as padding: its bytes stand for 0 wherever a
convolution reads them. Results are the same bit by bit.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.precision.int8_layer import Int8Layer
from common.precision.lowering import Call
from common.precision.pooling import ImageMean
from common.precision.steps import Node, Quantise, QuantisePixels, Relu, ZeroPad

GAPS = range(1, 17)  # pixels; the least that does is taken, and a convolution of stride 2 halves it
STRIP_WIDTH = 1024  # pixels
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


def find_strips(calls: list[Call], source: int, height: int, width: int) -> dict[int, Strip] | None:
    """Slots to what their images look like side by side; None where a step would mix them.

    Args:
        source: the slot of the images in float32, (B, C, height, width).
    """
    if width > WIDEST_IMAGE:
        return None
    for gap in GAPS:
        if found := _followed(calls, source, Strip(height, width, gap)):
            return found
    return None


def side_by_side(x: Tensor, strip: Strip, value: int) -> Tensor:
    """(B, C, H, W) bytes, channels-last, to (G, C, H, N * (W + gap)): G strips of N images, the last ones empty.

    Args:
        value: of the gaps, and of the images that are missing in the last strip.
    """
    num_strips = -(-len(x) * (strip.width + strip.gap) // STRIP_WIDTH)
    num_images = -(-len(x) // num_strips)
    shape = (num_strips, strip.height, num_images, strip.width + strip.gap, x.shape[1])
    laid = torch.full(shape, value, dtype=torch.uint8)
    images, into = x.permute(0, 2, 3, 1), laid
    if x.shape[1] == 4:
        images, into = images.view(torch.int32), into.view(torch.int32)
    num_full = len(x) // num_images
    full, rest = images[: num_full * num_images], images[num_full * num_images :]
    into[:num_full, :, :, : strip.width] = full.unflatten(0, (num_full, num_images)).transpose(1, 2)
    if len(rest):
        into[num_full, :, : len(rest), : strip.width] = rest.transpose(0, 1)
    return laid.flatten(2, 3).permute(0, 3, 1, 2)


def _followed(calls: list[Call], source: int, first: Strip) -> dict[int, Strip] | None:
    strips: dict[int, Strip] = {}
    for call in calls:
        if isinstance(call.compute, Quantise | QuantisePixels) and call.inputs == [source]:
            strips[call.output] = first
        elif any(slot in strips for slot in call.inputs):
            read = [strips.get(slot) for slot in call.inputs]
            if isinstance(call.compute, ImageMean):
                continue
            after = _after(call.compute, read[0]) if read[0] is not None else None
            if after is None or any(other != after for other in read[1:]):
                return None
            strips[call.output] = after
    return strips or None


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
