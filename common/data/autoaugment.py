"""AutoAugment (Cubuk et al. 2019, arXiv:1805.09501) in integers, drawn from given random numbers.

The policies are torchvision's tables, and so is the meaning of each operation and its level. torchvision's own pixel
operations blend and interpolate in float32, where a vector body and its tail may round differently: one sample's pixels
would depend on what else is in the batch, and on the processor. Here every operation is integer arithmetic; only
equalisation, which is integer there too, is torchvision's. n = samples, C = channels, H, W = height and width.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.windows import windows_at
from common.order import integers_below

NUM_DRAWS = 5  # which policy; for each of its two operations: whether it applies, and its sign
_TOP_LEVEL = 9  # levels are 0 to 9
_SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"}
_BY_LEVEL = {"ShearX", "ShearY", "Rotate"}  # one index of pixels serves all images of a level
_FRACTION_BITS = 16  # of the fixed-point matrices, as in Pillow: below 0.01 pixel off at 512 pixels

Level = int | Tensor  # of all images, or (n,) int64 with one of each


class AutoAugment:
    """A learnt policy: 25 pairs of operations, each with a probability and a level.

    Args:
        name: "cifar10", "imagenet" or "svhn".

    Raises:
        KeyError: there is no such policy.
    """

    def __init__(self, name: str) -> None:
        from torchvision.transforms import autoaugment  # slow to import, and few runs need it

        policies = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy[name.upper()]).policies
        self._names = sorted({operation for policy in policies for operation, _, _ in policy})
        self._operations = np.array([[self._names.index(operation[0]) for operation in policy] for policy in policies])
        self._probabilities = np.array([[operation[1] for operation in policy] for policy in policies])
        self._levels = np.array([[operation[2] or 0 for operation in policy] for policy in policies])
        self._by_level = np.array([operation in _BY_LEVEL for operation in self._names])
        self._signs = np.array([-1 if operation in _SIGNED else 1 for operation in self._names])

    def __call__(self, images: Tensor, draws: np.ndarray) -> Tensor:
        """Augments each image as its own draws say.

        Args:
            images: (n, C, H, W) uint8, C = 1 or 3; not modified.
            draws: (n, NUM_DRAWS) uint64, uniform.

        Returns:
            (n, C, H, W) uint8; row i is a function of row i of the arguments.
        """
        policies = integers_below(draws[:, 0], len(self._operations))
        applies = (draws[:, 1:3] >> np.uint64(11)) * 2.0**-53 < self._probabilities[policies]
        negative = draws[:, 3:5] >> np.uint64(63) == 1
        for slot in range(2):
            operations, levels = self._operations[policies, slot], self._levels[policies, slot]
            levels = np.where(negative[:, slot], self._signs[operations], 1) * levels
            images = self._apply(images, np.where(applies[:, slot], operations, -1), levels)
        return images

    def _apply(self, images: Tensor, operations: np.ndarray, levels: np.ndarray) -> Tensor:
        """One operation for each image; −1 is none. Images of one operation go together, some 20 groups."""
        groups = operations * 64 + np.where(self._by_level[operations], levels + _TOP_LEVEL, 0)
        groups[operations < 0] = -1
        order = np.argsort(groups, kind="stable")
        upload = torch.from_numpy(np.stack([order, np.argsort(order), levels[order]])).to(images.device)
        order_n, place_n, levels_n = upload
        images = images.index_select(0, order_n)
        values, starts = np.unique(groups[order], return_index=True)
        for group, start, stop in zip(values.tolist(), starts, [*starts[1:], len(order)], strict=True):
            if group >= 0:
                name = self._names[group // 64]
                level = group % 64 - _TOP_LEVEL if name in _BY_LEVEL else levels_n[start:stop]
                images[start:stop] = OPERATIONS[name](images[start:stop], level)
        return images.index_select(0, place_n)


def _divide(values: Tensor, divisor: int) -> Tensor:
    """⌊values / divisor⌋ in int32, for divisors 10 and 26 and values 0 … 8191: six times faster than torch's own."""
    return (values.to(torch.int32) * ((1 << 19) // divisor + 1)) >> 19


def _each(level: Level) -> Level:
    """A level as it broadcasts against (n, C, H, W), in int16: wider numbers would widen the images."""
    return level.to(torch.int16).view(-1, 1, 1, 1) if isinstance(level, Tensor) else level


def _blend(images: Tensor, other: Tensor | int, level: Level) -> Tensor:
    """From `other` (level −10) over `images` (level 0) onwards, in tenths: (n, C, H, W) in 0 … 255 → uint8."""
    level = _each(level)
    mixed = (images.to(torch.int16) * (10 + level)).sub_(other * level)
    return _divide(mixed.clamp_(0, 2550), 10).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """ITU-R 601 luma of (n, 3 or 1, H, W) uint8, in Pillow's integers: (n, 1, H, W) int16 in 0 … 255."""
    if images.shape[1] == 1:
        return images.to(torch.int16)
    red, green, blue = images.to(torch.int32).split(1, dim=1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.int16)


def _color(images: Tensor, level: Level) -> Tensor:
    return _blend(images, _grey(images), level)


def _contrast(images: Tensor, level: Level) -> Tensor:
    grey = _grey(images)
    num_pixels = grey.shape[-2] * grey.shape[-1]
    mean = (grey.sum(dim=(-2, -1), keepdim=True) + num_pixels // 2).div(num_pixels, rounding_mode="floor")
    return _blend(images, mean.to(torch.int16), level)


def _sharpness(images: Tensor, level: Level) -> Tensor:
    """Away from, or towards, the 3 × 3 mean with the centre counted five times; the border stays as it is."""
    height, width = images.shape[-2:]
    if min(height, width) < 3:
        return images
    wide = images.to(torch.int16)
    inner = wide[..., 1:-1, 1:-1]
    columns = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    total = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:] + inner * 4
    smooth = _divide(total * 2 + 13, 26).to(torch.int16)  # rounds total / 13, which is never a half
    images = images.clone()
    images[..., 1:-1, 1:-1] = _blend(inner, smooth, level)
    return images


def _posterize(images: Tensor, level: Level) -> Tensor:
    dropped_bits = (_each(level) * 8 + _TOP_LEVEL) // (2 * _TOP_LEVEL)  # level · 4 / 9, rounded; never a half
    kept = dropped_bits * 0 + 255 >> dropped_bits << dropped_bits
    return images & (kept.to(torch.uint8) if isinstance(kept, Tensor) else kept)


def _solarize(images: Tensor, level: Level) -> Tensor:
    threshold = -(-255 * (_TOP_LEVEL - _each(level)) // _TOP_LEVEL)
    return images ^ (images >= threshold).to(torch.uint8) * 255


def _auto_contrast(images: Tensor, level: Level) -> Tensor:
    """Stretches each channel to 0 … 255; a channel of one value stays as it is."""
    low, high = images.amin(dim=(-2, -1), keepdim=True), images.amax(dim=(-2, -1), keepdim=True)
    flat = low == high
    low, span = low.masked_fill(flat, 0), (high - low).masked_fill(flat, 255)
    # A correctly rounded quotient of integers this small never rounds up to the next one: as exact as integers.
    return (images - low).to(torch.float32).mul_(255).div_(span.to(torch.float32)).to(torch.uint8)


def _equalize(images: Tensor, level: Level) -> Tensor:
    from torchvision.transforms.v2 import functional

    result: Tensor = functional.equalize(images)
    return result


def _translation(images: Tensor, level: Level, dim: int) -> Tensor:
    """Moves by up to 150 of every 331 pixels; black comes in."""
    num, height, width = len(images), *images.shape[-2:]
    size, most = images.shape[dim], 150 * images.shape[dim] // 331
    margin_x, margin_y = (most, 0) if dim == -1 else (0, most)
    padded = F.pad(images, (margin_x, margin_x, margin_y, margin_y))
    levels_n = level if isinstance(level, Tensor) else torch.full((num,), level, device=images.device)
    moved_n = levels_n.sign() * (levels_n.abs() * 150 * size // (331 * _TOP_LEVEL))
    step = 1 if dim == -1 else padded.shape[-1]
    starts_n = torch.arange(num, device=images.device) * padded[0].numel() + (most - moved_n) * step
    return windows_at(padded, starts_n, height, width)


def _warp(images: Tensor, level: Level, kind: str) -> Tensor:
    """Nearest-neighbour warp of one level; what comes from outside is black."""
    assert isinstance(level, int), "images of one level are warped together"
    height, width = images.shape[-2:]
    padded = F.pad(images.flatten(2), (0, 1))  # one black pixel past the end, for what lies outside
    index = _warp_index(kind, level, height, width, images.device)
    return padded.gather(2, index.expand(*images.shape[:2], -1)).view(images.shape)


@lru_cache(maxsize=512)
def _warp_index(kind: str, level: int, height: int, width: int, device: torch.device) -> Tensor:
    """(H · W,) int64: the flat index of each pixel's source, H · W where that is outside.

    In half pixels about a centre, so that pixel centres are integers: source = matrix · (x, y), in fixed point.
    """
    one = 1 << _FRACTION_BITS
    if kind == "rotate":  # counter-clockwise by 30° at the top level, about the middle of the image
        angle = math.radians(30 * level / _TOP_LEVEL)
        cos, sin = round(math.cos(angle) * one), round(math.sin(angle) * one)
        (xx, xy, yx, yy), (centre_x, centre_y) = (cos, -sin, sin, cos), (width, height)
    else:  # by 0.3 at the top level, about the upper left corner
        shear = round(level * one / 30)
        (xx, xy, yx, yy), (centre_x, centre_y) = (one, shear, 0, one), (0, 0)
        if kind == "shear_y":
            xy, yx = yx, xy
    x = 2 * np.arange(width)[None, :] + 1 - centre_x
    y = 2 * np.arange(height)[:, None] + 1 - centre_y
    source_x = (xx * x + xy * y + one * centre_x) >> (_FRACTION_BITS + 1)
    source_y = (yx * x + yy * y + one * centre_y) >> (_FRACTION_BITS + 1)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    with torch.inference_mode(False):  # the cache outlives the caller's mode
        index = torch.from_numpy(np.where(inside, source_y * width + source_x, height * width).reshape(-1))
        return index.to(device)


OPERATIONS: dict[str, Callable[[Tensor, Level], Tensor]] = {
    "ShearX": lambda images, level: _warp(images, level, "shear_x"),
    "ShearY": lambda images, level: _warp(images, level, "shear_y"),
    "TranslateX": lambda images, level: _translation(images, level, -1),
    "TranslateY": lambda images, level: _translation(images, level, -2),
    "Rotate": lambda images, level: _warp(images, level, "rotate"),
    "Brightness": lambda images, level: _blend(images, 0, level),
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": lambda images, level: 255 - images,
}
