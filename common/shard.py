"""A rank's share of the samples: of W trainer ranks, rank r owns the ids that are r modulo W.

What a rank remembers of its samples, and the order in which it has them scored, go by local ids 0 … n − 1; data,
augmentation, batches and files go by the ids of the whole data set. With one rank the two are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.order import Order

Ints = np.ndarray  # (n,) int64


@dataclass(frozen=True)
class Shard:
    """Of rank `rank` among `num_ranks`.

    Raises:
        ValueError: not 0 <= rank < num_ranks.
    """

    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.num_ranks:
            raise ValueError(f"rank must be in [0, {self.num_ranks}), got {self.rank}")

    def num_of(self, num_samples: int) -> int:
        """How many of `num_samples` samples it owns."""
        return len(range(self.rank, num_samples, self.num_ranks))

    def global_ids(self, ids: Ints) -> Ints:
        """Ids of the whole data set, by local id."""
        return ids if self.num_ranks == 1 else ids * self.num_ranks + self.rank

    def local_ids(self, ids: Ints) -> Ints:
        """Local ids, by ids of the whole data set that it owns."""
        return ids if self.num_ranks == 1 else ids // self.num_ranks

    def owned(self, ids: Ints) -> np.ndarray:
        """(n,) bool: which ids of the whole data set it owns."""
        if self.num_ranks == 1:
            return np.ones(len(ids), dtype=bool)
        mask: np.ndarray = ids % self.num_ranks == self.rank
        return mask

    @property
    def rows(self) -> slice:
        """Of an array or tensor by id of the whole data set, the rows by local id."""
        return slice(self.rank, None, self.num_ranks)

    def named(self, stream: str) -> str:
        """A stream of keyed numbers that each rank draws for itself; with one rank as it is called."""
        return stream if self.num_ranks == 1 else f"{stream} of rank {self.rank} of {self.num_ranks}"

    def candidates(self, num_samples: int, seed: int) -> Order:
        """The order, over local ids, in which this rank has its share of `num_samples` samples scored.

        Raises:
            ValueError: it owns none of them.
        """
        return Order(self.num_of(num_samples), seed, self.named("candidates"))


WHOLE = Shard()


def merged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """An array by id of the whole data set, (N, ...), out of what each rank has by local id, in the order of ranks.

    Raises:
        ValueError: they are not the shards of one data set.
    """
    num_samples = sum(len(part) for part in parts)
    whole = np.empty((num_samples, *parts[0].shape[1:]), parts[0].dtype)
    for rank, part in enumerate(parts):
        shard = Shard(rank, len(parts))
        if len(part) != shard.num_of(num_samples):
            sizes = ", ".join(str(len(one)) for one in parts)
            raise ValueError(f"ranks of {sizes} samples are not the shards of one data set")
        whole[shard.rows] = part
    return whole
