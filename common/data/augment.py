"""Augmentation as a function of (seed, epoch, sample id): uint8 → uint8, in integers.

Scorer and trainer, a lease issued again and a resumed run all make the same bytes, whatever else is in the batch and
however many threads work on it. n = samples, C = channels, H, W = height and width.
"""

import numpy as np
import torch
from torch import Tensor

from common.config import AugmentOptions
from common.data.autoaugment import NUM_DRAWS, AutoAugment
from common.data.source import SampleSpec
from common.data.windows import windows_at
from common.errors import ConfigError
from common.order import integers_below, keyed_uint64


class Augmentation:
    """Pad, crop and flip; then AutoAugment; then cutout. What is switched off is skipped.

    Args:
        options: which augmentations, and how strong.
        seed: the run's seed.
        spec: what one sample looks like.

    Raises:
        ConfigError: an augmentation is asked for on samples that it has no meaning for.
    """

    def __init__(self, options: AugmentOptions, seed: int, spec: SampleSpec) -> None:
        self.description = describe(options)
        self._options = options
        self._seed = seed
        self._auto_augment = None
        if self.description == "none":
            return
        if not spec.is_image:
            raise ConfigError(
                f"augment.{self.description.split('=')[0].split()[0]} needs uint8 images (C, H, W), but samples are "
                f"{spec.dtype} of shape {spec.shape}; leave the augment options out for this data"
            )
        if options.autoaugment != "none":
            if spec.shape[0] not in (1, 3):
                raise ConfigError(
                    f"augment.autoaugment={options.autoaugment} needs images of 1 or 3 channels, got {spec.shape[0]}; "
                    "use augment.autoaugment=none for this data"
                )
            self._auto_augment = AutoAugment(options.autoaugment)

    def __call__(self, inputs: Tensor, epochs: np.ndarray, ids: np.ndarray) -> Tensor:
        """Augments samples for their visits.

        Args:
            inputs: (n, C, H, W) uint8; not modified. Any shape and dtype where nothing is switched on.
            epochs: (n,) int64, the epoch of each visit.
            ids: (n,) int64, the sample ids.

        Returns:
            Like inputs and where they lie, the same bytes on every device; row i depends on row i of the arguments
            alone. The same tensor where nothing is switched on.
        """
        assert len(inputs) == len(epochs) == len(ids), "inputs, epochs and ids must have one length"
        options = self._options
        if len(ids) == 0:
            return inputs
        if options.crop_padding or options.flip:
            draws = self._draws("crop and flip", 3, epochs, ids)
            inputs = _crop_and_flip(inputs, draws, options.crop_padding, options.flip)
        if self._auto_augment is not None:
            inputs = self._auto_augment(inputs, self._draws("autoaugment", NUM_DRAWS, epochs, ids))
        if options.cutout:
            inputs = _cut_out(inputs, self._draws("cutout", 2, epochs, ids), options.cutout)
        return inputs

    def _draws(self, use: str, num: int, epochs: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """(n, num) uint64; each use has numbers of its own, so switching one off leaves the others as they were."""
        return keyed_uint64(self._seed, f"augment {use}", epochs[:, None], ids[:, None], np.arange(num))


def describe(options: AugmentOptions) -> str:
    """What is switched on, in the order in which it is done: "crop_padding=4 flip cutout=16", or "none"."""
    words = []
    if options.crop_padding:
        words.append(f"crop_padding={options.crop_padding}")
    if options.flip:
        words.append("flip")
    if options.autoaugment != "none":
        words.append(f"autoaugment={options.autoaugment}")
    if options.cutout:
        words.append(f"cutout={options.cutout}")
    return " ".join(words) or "none"


def _crop_and_flip(images: Tensor, draws: np.ndarray, padding: int, flip: bool) -> Tensor:
    """A crop of the original size out of the image with `padding` black pixels on each side, mirrored half the time."""
    num, channels, height, width = images.shape
    tall, wide = height + 2 * padding, width + 2 * padding
    down, right = (integers_below(draws[:, column], 2 * padding + 1) for column in (0, 1))
    mirrored = integers_below(draws[:, 2], 2) == 1 if flip else np.zeros(num, dtype=bool)
    order = np.argsort(mirrored, kind="stable")  # those to mirror come last, to be mirrored in one go
    place = np.argsort(order)
    starts = place * (channels * tall * wide) + down * wide + np.where(mirrored, 2 * padding - right, right)
    order_n, starts_n = torch.from_numpy(np.stack([order, starts])).to(images.device)

    padded = images.new_zeros(num, channels, tall, wide)
    inner, num_plain = padded[:, :, padding : padding + height, padding : padding + width], num - int(mirrored.sum())
    images = images.index_select(0, order_n)
    inner[:num_plain] = images[:num_plain]
    inner[num_plain:] = images[num_plain:].flip(3)
    return windows_at(padded, starts_n, height, width)


def _cut_out(images: Tensor, draws: np.ndarray, side: int) -> Tensor:
    """Blackens a square (DeVries & Taylor 2017, arXiv:1708.04552): centre uniform over pixels, cut at the borders."""
    height, width = images.shape[-2:]
    down = np.arange(height) - integers_below(draws[:, 0], height)[:, None] + side // 2
    right = np.arange(width) - integers_below(draws[:, 1], width)[:, None] + side // 2
    outside = ~(((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None, :])
    return images * torch.from_numpy(outside.view(np.uint8)).to(images.device)[:, None]
