"""The endless order of samples: positions → ids, and the keyed random numbers that everything seeded draws from.

Scorer and trainer both compute ids from positions: no permutation is held in memory, and none travels. numpy only.
"""

import hashlib
import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_ALL = (1 << 64) - 1
_BLOCK = 2048  # positions
_NUM_ROUNDS = 6  # each costs some 25 µs a lease of 1,280 positions, on the training thread too


def keyed_uint64(seed: int, stream: str, *counters: np.ndarray | int) -> np.ndarray:
    """Random numbers as a function of (seed, stream, counters) and of nothing else: no state, no order of drawing.

    Every counter goes through one round of SplitMix64 (Steele, Lea & Flood 2014); a digest of seed and stream starts.

    Args:
        seed: any integer.
        stream: names the use, so that two uses with equal counters are independent.
        counters: integers or integer arrays that broadcast against each other.

    Returns:
        uint64 of the counters' broadcast shape, uniform over all 64 bits.
    """
    if all(isinstance(counter, int) for counter in counters):
        return np.asarray(_keyed_int(seed, stream, counters), dtype=np.uint64)
    state = np.asarray(_stream_key(seed, stream), dtype=np.uint64)
    with np.errstate(over="ignore"):  # 64-bit wrap-around is the arithmetic meant; numpy warns of it for scalars
        for counter in counters:
            state = _splitmix(state + (np.asarray(counter).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return state


def integers_below(draws: np.ndarray, limit: int) -> np.ndarray:
    """Turns uint64 draws into int64 in [0, limit), for limits up to 2³²; the bias is below limit / 2³²."""
    return (((draws >> _HALF) * np.uint64(limit)) >> _HALF).astype(np.int64)


@dataclass(frozen=True)
class Order:
    """An endless order of the samples 0 … num_samples − 1, shuffled anew in each epoch.

    The id at position p is a keyed bijection of p mod N, with epoch p // N in the key: a Feistel network on the grid
    of about √N × √N cells with modular addition (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"). Cells
    past N, mostly none or a handful, are walked on until they land inside. A grid of a power of four would have up to
    three cells outside for each inside, and would walk for a millisecond where this takes a fifth.

    Args:
        num_samples: N, from 1 to 2⁶².
        seed: the run's seed.
        stream: orders of different names are independent: "candidates" for the leases, "plain" for plain batches.

    Raises:
        ValueError: num_samples is outside its range.
    """

    num_samples: int
    seed: int
    stream: str
    _rows: int = field(init=False, repr=False, compare=False)
    _columns: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.num_samples <= 1 << 62:
            raise ValueError(f"an order needs 1 to 2**62 samples, got {self.num_samples}")
        root = math.isqrt(self.num_samples - 1) + 1
        rows = min(range(root, root + min(root, 64)), key=lambda rows: -self.num_samples % rows)  # fewest cells past N
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_columns", -(-self.num_samples // rows))

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Sample ids at `positions`.

        Args:
            positions: (n,) int64, >= 0, in any order and across any epochs.

        Returns:
            (n,) int64 in [0, num_samples).

        Raises:
            ValueError: a position is negative.
        """
        epochs = self.epochs(positions)
        cells = (positions - epochs * self.num_samples).astype(np.uint64)
        if len(epochs) and epochs[0] == epochs[-1] and (epochs == epochs[0]).all():
            epochs = epochs[:1]  # the usual lease: one key serves all
        keys = keyed_uint64(self.seed, f"order of {self.stream}", epochs)
        cells = self._permute(cells, keys)
        outside = np.flatnonzero(cells >= self.num_samples)
        while len(outside):
            cells[outside] = self._permute(cells[outside], keys if len(keys) == 1 else keys[outside])
            outside = outside[cells[outside] >= self.num_samples]
        return cells.astype(np.int64)

    def ids_between(self, start: int, stop: int) -> np.ndarray:
        """The `ids` of positions start … stop - 1. Short runs one after the other are worked out together, in blocks.

        Raises:
            ValueError: start is negative.
        """
        if start < 0 or stop - start > _BLOCK or start >= stop:
            return self.ids(np.arange(start, stop))
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        ids = _block(self, first) if first == last else np.concatenate([_block(self, first), _block(self, last)])
        return ids[start - first * _BLOCK : stop - first * _BLOCK].copy()

    def epochs(self, positions: np.ndarray) -> np.ndarray:
        """Epochs that `positions` lie in: (n,) int64 → (n,) int64. Raises ValueError for a negative position."""
        if len(positions) and positions.min() < 0:
            raise ValueError(f"positions must be >= 0, got {positions.min()}")
        return np.asarray(positions, dtype=np.int64) // self.num_samples

    def _permute(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """One pass over the rows × columns cells, a bijection for each key: (n,) uint64, keys (n,) or (1,) → (n,)."""
        row = cells // np.uint64(self._columns)
        column = cells - row * np.uint64(self._columns)
        for number in range(_NUM_ROUNDS):
            keys = keys + _GOLDEN
            if number % 2 == 0:
                row = _shift(row, column, keys, self._rows)
            else:
                column = _shift(column, row, keys, self._columns)
        return row * np.uint64(self._columns) + column


def held_out_mask(num: int, fraction: float, key: str) -> np.ndarray:
    """Marks a share of `num` samples as held out: the same ones in every run, whatever its seed.

    Args:
        num: number of samples.
        fraction: share to hold out, in [0, 1].
        key: names the data set; another key holds out another subset.

    Returns:
        (num,) bool with exactly ⌈fraction · num⌉ entries set, `fraction` read as the decimal number it prints as.

    Raises:
        ValueError: fraction is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"the held-out fraction must be in [0, 1], got {fraction}")
    mask = np.zeros(num, dtype=bool)
    if num:
        num_held_out = math.ceil(Fraction(repr(float(fraction))) * num)  # 0.07 * 100 is 7.000000000000001
        mask[Order(num, 0, f"held out of {key}").ids(np.arange(num_held_out))] = True
    return mask


@lru_cache(maxsize=16)
def _block(order: Order, number: int) -> np.ndarray:
    """Ids of the positions of a block; shared, so to be copied."""
    return order.ids(np.arange(number * _BLOCK, (number + 1) * _BLOCK))


@lru_cache(maxsize=256)
def _stream_key(seed: int, stream: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest(), "little")


def _keyed_int(seed: int, stream: str, counters: tuple[Any, ...]) -> int:
    """One draw of `keyed_uint64` in Python's integers: a fifth of the time that numpy's scalars take."""
    state = _stream_key(seed, stream)
    golden, mix_1, mix_2 = int(_GOLDEN), int(_MIX_1), int(_MIX_2)
    for counter in counters:
        state = (state + (counter + 1) * golden) & _ALL
        state = ((state ^ (state >> 30)) * mix_1) & _ALL
        state = ((state ^ (state >> 27)) * mix_2) & _ALL
        state ^= state >> 31
    return state


def _splitmix(state: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of 64 bits in which every output bit depends on every input bit."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def _shift(half: np.ndarray, other: np.ndarray, keys: np.ndarray, size: int) -> np.ndarray:
    """One round: adds a keyed function of `other` to `half`, modulo `size`."""
    mixed = (other ^ keys) * _MIX_1
    mixed = (mixed ^ (mixed >> _HALF)) * _MIX_2
    moved = half + (((mixed >> _HALF) * np.uint64(size)) >> _HALF)
    return np.minimum(moved, moved - np.uint64(size))  # below `size`, the difference wraps around to a huge number
