"""Label noise for experiments: a keyed share of the training labels is replaced, the same one in every process and run.

n = samples asked for.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from common.data.source import AbsentSplit, Source, Split, targets_of
from common.errors import ConfigError
from common.order import integers_below, keyed_uint64

_SEED = 0  # fixed: runs of several seeds train on the same labels


@dataclass(frozen=True)
class UniformNoise:
    """Every label is replaced with the probability `share`, by one of the other classes, each as likely as another.

    A function of the sample id: nothing is kept per sample, and the labels replaced at a share are replaced at every
    larger one too, by the same classes.

    Attributes:
        share: in [0, 1).
        num_classes: at least 2.
    """

    share: float
    num_classes: int

    @property
    def description(self) -> str:
        return f"uniform {self.share!r} of {self.num_classes} classes"

    def is_noisy(self, ids: np.ndarray) -> np.ndarray:
        """(n,) int64 -> (n,) bool."""
        threshold = int(Fraction(self.share) * 2**64)
        return keyed_uint64(_SEED, "label noise", ids) < np.uint64(threshold)

    def replaced(self, targets: Tensor, ids: Tensor) -> Tensor:
        """The labels with the noise: (n,) int64 targets in [0, num_classes) of (n,) int64 ids -> (n,) int64."""
        numbers = ids.numpy()
        shift = 1 + integers_below(keyed_uint64(_SEED, "label noise classes", numbers), self.num_classes - 1)
        others = (targets + torch.from_numpy(shift)) % self.num_classes
        return torch.where(torch.from_numpy(self.is_noisy(numbers)), others, targets)


class NoisySplit:
    """Another split's samples, some with another label."""

    def __init__(self, split: Split, noise: UniformNoise) -> None:
        self._split = split
        self._noise = noise
        content_digest = getattr(split, "content_digest", None)
        if content_digest is not None:
            self.content_digest = content_digest

    def __len__(self) -> int:
        return len(self._split)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = self._split.fetch(ids)
        return inputs, self._noise.replaced(targets, ids)

    def targets(self, ids: Tensor) -> Tensor:
        return self._noise.replaced(targets_of(self._split, ids), ids)


def with_label_noise(source: Source, share: float) -> Source:
    """The source with a share of its training labels replaced; the held-out ones stay true.

    Where training samples are absent, the scorers that ship them replace the labels, and this process knows which.

    Raises:
        ConfigError: targets are not one class for each sample, there are fewer than two classes, or the source has
            label noise of its own.
    """
    option, sample = f"--label-noise {share:g}", source.sample
    if source.noise is not None:
        raise ConfigError(
            f"{option}: --data {source.name} has label noise of its own ({source.noise.description}); "
            "leave one of the two out"
        )
    if sample.target_shape != ():
        raise ConfigError(
            f"{option} replaces one class for each sample, but targets of --data {source.name} have the shape "
            f"{sample.target_shape}; leave it out for this data"
        )
    if source.num_classes < 2:
        raise ConfigError(f"{option} needs another class to replace by, but --data {source.name} has only one")
    noise = UniformNoise(share, source.num_classes)
    absent = isinstance(source.train, AbsentSplit)
    return replace(source, train=source.train if absent else NoisySplit(source.train, noise), noise=noise)
