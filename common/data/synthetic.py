"""Classes in the plane whose overlap and label noise are chosen: easy and hard samples by construction."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from common.config import DataOptions, SyntheticOptions
from common.data.source import Source, TensorSplit
from common.order import integers_below, keyed_uint64

_NUM_UNIFORMS = 12  # of 16 bits each; their sum has variance 12 / 12 = 1


def open_synthetic(options: DataOptions) -> Source:
    """(2,) float32 features; class centres stand evenly on the unit circle.

    `num_samples` for training and a fifth as many held out. Label noise replaces that share of the *training* labels
    by uniform draws; the held-out labels are clean, so accuracy is judged against the truth. Everything follows from
    `synthetic.seed`, never from the seed of the run: runs of several seeds train on the same samples.
    """
    chosen = options.synthetic
    num_held_out = -(-chosen.num_samples // 5)
    ids = np.arange(chosen.num_samples + num_held_out)
    inputs = torch.from_numpy(_features(chosen, ids))
    classes = ids % chosen.num_classes
    noisy = np.where(_is_noisy(chosen, ids), _random_classes(chosen, ids), classes)
    num = chosen.num_samples
    return Source(
        name="synthetic",
        train=TensorSplit(inputs[:num], torch.from_numpy(noisy[:num])),
        held_out=TensorSplit(inputs[num:], torch.from_numpy(classes[num:])),
        num_classes=chosen.num_classes,
        noise=SyntheticNoise(chosen) if chosen.label_noise else None,
    )


@dataclass(frozen=True)
class SyntheticNoise:
    """See `common.data.source.LabelNoise`. A draw that hits the true class makes no noise."""

    chosen: SyntheticOptions

    @property
    def description(self) -> str:
        return f"synthetic {self.chosen.label_noise!r} of seed {self.chosen.seed}"

    def is_noisy(self, ids: np.ndarray) -> np.ndarray:
        return _is_noisy(self.chosen, ids) & (_random_classes(self.chosen, ids) != ids % self.chosen.num_classes)


def _features(chosen: SyntheticOptions, ids: np.ndarray) -> np.ndarray:
    """(n, 2) float32: the centre of class id % num_classes plus noise."""
    angles = 2 * math.pi * np.arange(chosen.num_classes) / chosen.num_classes
    # Rounded: the last bit of sin and cos differs between machines, and both processes need equal bytes.
    centres = np.round(np.stack([np.cos(angles), np.sin(angles)], axis=1), 9)
    half_distance = round(math.sin(math.pi / chosen.num_classes), 9)
    noise = _normal(chosen.seed, ids[:, None], np.arange(2)[None, :])
    return (centres[ids % chosen.num_classes] + chosen.overlap * half_distance * noise).astype(np.float32)


def _normal(seed: int, *counters: np.ndarray) -> np.ndarray:
    """Float64 of mean 0 and variance 1, in -6..6: a sum of uniforms, exact on every machine, unlike log and cos."""
    draws = [keyed_uint64(seed, "synthetic/features", *counters, part) for part in range(_NUM_UNIFORMS // 4)]
    uniforms = [(draw >> np.uint64(shift)) & np.uint64(0xFFFF) for draw in draws for shift in (0, 16, 32, 48)]
    total = np.sum(uniforms, axis=0).astype(np.int64)
    return (2 * total - _NUM_UNIFORMS * 0xFFFF) / (2 * 0x10000)


def _is_noisy(chosen: SyntheticOptions, ids: np.ndarray) -> np.ndarray:
    draws = integers_below(keyed_uint64(chosen.seed, "synthetic/noisy", ids), 1_000_000)
    return draws < round(chosen.label_noise * 1_000_000)


def _random_classes(chosen: SyntheticOptions, ids: np.ndarray) -> np.ndarray:
    return integers_below(keyed_uint64(chosen.seed, "synthetic/classes", ids), chosen.num_classes)
