"""Image files and images of another size, as uint8 pixels: Pillow, in a few threads where that pays."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor

from common.data.source import Split, targets_of
from common.errors import DataError

FORMATS = ("JPEG", "PNG")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

# Pillow reads a header in Python and decodes without the interpreter's lock. Below about this size the first takes
# longer than the second, and threads that wait for the lock are slower than one.
_THREADS_FROM_PIXELS = 128 * 128


def decoder_name() -> str:
    """The versions that decide which pixels come out of a file."""
    return f"pillow {PIL.__version__}, libjpeg {features.version('libjpeg_turbo') or features.version('jpg')}"


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header.

    Raises:
        DataError: the file is no JPEG or PNG image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error) from error


def decode(path: Path, image_size: int | None = None) -> np.ndarray:
    """One JPEG or PNG file as (3, H, W) uint8; grey becomes RGB and transparency is dropped.

    With `image_size` the shorter side is scaled to it (bilinear, antialiased) and the middle square is kept.

    Raises:
        DataError: the file is missing, damaged, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image_size is not None:
                image.draft("RGB", (image_size, image_size))  # JPEG decodes at 1/2, 1/4 or 1/8 for little more
            return np.ascontiguousarray(np.asarray(_fit(_as_rgb(image), image_size)).transpose(2, 0, 1))
    except Exception as error:  # a damaged file raises whatever its decoder stumbles over
        raise _unreadable(path, error) from error


def for_each(do: Callable[[int], None], indices: Iterable[int], num_pixels: int) -> None:
    """Calls `do` for every index, each of work on an image of `num_pixels`; the first error rises."""
    if num_pixels < _THREADS_FROM_PIXELS:
        for index in indices:
            do(index)
    else:
        for _ in _threads().map(do, indices):
            pass


class ResizedSplit:
    """Another split's uint8 images (C, H, W), C of 1 or 3, at `image_size`; resized whenever they are fetched."""

    def __init__(self, split: Split, image_size: int) -> None:
        self._split = split
        self._image_size = image_size

    def __len__(self) -> int:
        return len(self._split)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = self._split.fetch(ids)
        size = self._image_size
        resized = np.empty((len(inputs), inputs.shape[1], size, size), dtype=np.uint8)

        def resize(index: int) -> None:
            pixels = inputs[index].numpy().transpose(1, 2, 0)
            image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
            resized[index] = np.asarray(_fit(image, size)).reshape(size, size, -1).transpose(2, 0, 1)

        for_each(resize, range(len(inputs)), size * size)
        return torch.from_numpy(resized), targets

    def targets(self, ids: Tensor) -> Tensor:
        return targets_of(self._split, ids)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"images of more than 8 bits a channel are not supported (Pillow's mode {image.mode})")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB warns
    return image.convert("RGB")


def _fit(image: Image.Image, image_size: int | None) -> Image.Image:
    """The middle square, scaled to `image_size`; unchanged where there is nothing to do."""
    if image_size is None or image.size == (image_size, image_size):
        return image
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)


def _unreadable(path: Path, error: Exception) -> DataError:
    """UnidentifiedImageError repeats the path and says little else."""
    reason = "it is neither JPEG nor PNG" if isinstance(error, UnidentifiedImageError) else str(error)
    return DataError(f"cannot read image {path}: {reason}; replace the file or remove it")


@cache
def _threads() -> ThreadPoolExecutor:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(max_workers=min(usable, 8), thread_name_prefix="decode")
