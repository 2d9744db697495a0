"""Samples at positions of an order: the same bytes for scorer and trainer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.data.augment import Augmentation
from common.data.source import Source
from common.order import Order
from common.shard import WHOLE, Shard


@dataclass(frozen=True)
class Samples:
    """Augmented samples of one visit each, not yet normalised.

    Attributes:
        ids: (n,) int64, of the whole data set.
        inputs: (n, *shape) as the source gives them: uint8 images, float features, int64 tokens. On the CPU, or on the
            device on which the source is resident.
        targets: (n, *target_shape) int64, on the CPU.
    """

    ids: np.ndarray
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, sizes: Sequence[int]) -> "list[Samples]":
        """Parts of so many samples, one after the other; views."""
        if len(sizes) == 1:
            return [self]
        ids = np.split(self.ids, np.cumsum(sizes)[:-1])
        return list(map(Samples, ids, self.inputs.split(list(sizes)), self.targets.split(list(sizes))))


class SampleReader:
    """Reads training samples by position: id from the order, sample from the source, augmented for its epoch.

    Args:
        order: over the local ids of `shard`.

    Raises:
        ValueError: the order is not over as many samples as the source has, or as this shard has of them.
    """

    def __init__(self, source: Source, augmentation: Augmentation, order: Order, shard: Shard = WHOLE) -> None:
        num = shard.num_of(len(source.train))
        if order.num_samples != num:
            name = shard.named(source.name)
            raise ValueError(f"the order is over {order.num_samples} samples, but {name} has {num}")
        self.source = source
        self.augmentation = augmentation
        self.order = order
        self.shard = shard

    def read(self, positions: np.ndarray) -> Samples:
        """Samples at (n,) int64 positions, in their order; each row is a function of its own position."""
        positions = np.asarray(positions, dtype=np.int64)
        return self.fetch(self.order.ids(positions), self.order.epochs(positions))

    def read_runs(self, runs: Sequence[range | np.ndarray]) -> Samples:
        """As `read`, of all these positions together; a range of consecutive ones takes less time than an array."""
        ids = [
            self.order.ids_between(run.start, run.stop) if isinstance(run, range) else self.order.ids(run)
            for run in runs
        ]
        visits = [self.order.epochs(np.arange(run.start, run.stop) if isinstance(run, range) else run) for run in runs]
        return self.fetch(np.concatenate(ids), np.concatenate(visits))

    def fetch(self, ids: np.ndarray, visits: np.ndarray) -> Samples:
        """Samples by (n,) int64 local id; `visits` (n,) int64, >= 0, key augmentation: the epoch, for a position."""
        ids = self.shard.global_ids(ids)
        inputs, targets = self.source.train.fetch(torch.from_numpy(ids))
        return Samples(ids, self.augmentation(inputs, visits, ids), targets)
