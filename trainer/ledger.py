"""The ledger: what is known per sample id, in flat arrays of at most 17 bytes a sample.

    field     dtype    value
    loss      float32  last loss, of a scoring forward or of training; NaN = unknown
    score     float32  last score; NaN = unknown; which end is hard is the method's business
    age       uint8    visits since the last scoring forward; 255 = never scored
    seen      uint32   times visited
    selected  uint32   times trained on

Only the fields asked for are kept. A call that has news for a field that is not kept ignores it.
"""

import threading
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.order import integers_below, keyed_uint64
from common.whole_files import replacing
from trainer.repeats import turns

FIELDS = ("loss", "score", "age", "seen", "selected")
NEVER = 255  # the age of a sample that no forward was planned for yet
MAX_MAX_AGE = 250
_ZERO, _NAN = np.uint32(0), np.float32(np.nan)
_EMPTY: dict[str, np.generic] = dict(zip(FIELDS, (_NAN, _NAN, np.uint8(NEVER), _ZERO, _ZERO), strict=True))


class Ledger:
    """Thread-safe: the I/O thread plans visits, the feeder and the training thread report and read.

    One lock, held for microseconds a chunk, and by `state_dict` and `save` while they copy all arrays (a quarter of a
    second at 100 million samples). The arrays are the live ones: whoever reads them without a method may see a chunk
    half updated, which a rule over all samples does not mind.

    Ids are (n,) int64 in [0, num_samples) everywhere; every method raises IndexError for an id outside and ValueError
    for ids of another dtype or shape, and then changes nothing. An id that comes twice in a call counts twice.

    Args:
        fields: which of FIELDS to keep, in any order.
        seed: the run's seed; spreads the forwards of `plan_visit` over the epochs.

    Attributes:
        fields: the fields kept, in the order of FIELDS.
        loss, score, age, seen, selected: (num_samples,) of the types above; None where not kept.

    Raises:
        ValueError: num_samples < 1, or a field has an unknown name.
    """

    def __init__(self, num_samples: int, fields: Collection[str], *, seed: int = 0) -> None:
        if num_samples < 1:
            raise ValueError(f"a ledger needs at least one sample, got {num_samples}")
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise ValueError(f"unknown ledger fields {unknown}; there are {', '.join(FIELDS)}")
        self.num_samples = num_samples
        self.fields = tuple(name for name in FIELDS if name in fields)
        self._seed = seed
        self._lock = threading.Lock()
        self._arrays = {name: np.full(num_samples, _EMPTY[name]) for name in self.fields}
        self.loss, self.score, self.age, self.seen, self.selected = (self._arrays.get(name) for name in FIELDS)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays: num_samples times 4 for each field, 1 for the age."""
        return sum(array.nbytes for array in self._arrays.values())

    # -- a chunk at a time --------------------------------------------------------------------------------------------

    def plan_visit(self, ids: np.ndarray, max_age: int) -> np.ndarray:
        """Decides which of these visits need a scoring forward, and books them as planned.

        A forward is due on the first visit, on the `max_age`-th after the last forward, and whenever the last loss is
        unknown (where losses are kept): a forward whose result never comes is to be reported as NaN, or the loss would
        outlive its age. After a forward for a sample of which nothing was known, the age starts at a keyed offset in
        [0, max_age) instead of 0, so that every later epoch needs forwards for one in `max_age` samples, and not one
        epoch for all of them. Results that come later than the second visit do not change that.

        Args:
            ids: the visits in their order; the same ones must not be planned twice.
            max_age: n, from 1 (every visit needs a forward) to 250.

        Returns:
            (n,) bool, true where a forward is due.

        Raises:
            ValueError: max_age is outside its range, or the ledger keeps no age.
        """
        if not 1 <= max_age <= MAX_MAX_AGE:
            raise ValueError(f"max_age must be from 1 to {MAX_MAX_AGE} visits, got {max_age}")
        if self.age is None:
            raise ValueError(f"planning visits needs the field 'age'; the ledger keeps {self.fields}")
        ids = self._checked(ids)
        needed = np.empty(len(ids), dtype=bool)
        parts = turns(ids)
        with self._lock:
            for turn in parts:
                needed[turn] = self._visit(self.age, ids[turn], max_age)
        return needed

    def scored(self, ids: np.ndarray, *, losses: np.ndarray | None = None, scores: np.ndarray | None = None) -> None:
        """Results of scoring forwards, (n,) float each; NaN makes the loss or the score unknown."""
        ids = self._checked(ids)
        news = [
            (array, _values(name, values, len(ids)))
            for name, array, values in (("losses", self.loss, losses), ("scores", self.score, scores))
            if array is not None and values is not None
        ]
        with self._lock:
            for array, values in news:
                array[ids] = values

    def visited(self, ids: np.ndarray) -> None:
        """These samples were offered for training: `seen` grows by one for each."""
        ids = self._checked(ids)
        if self.seen is not None:
            with self._lock:
                np.add.at(self.seen, ids, np.uint32(1))  # counts repeats, and costs no more than gather, add, scatter

    def trained(self, ids: np.ndarray, losses: np.ndarray | None = None) -> None:
        """These samples were trained on: `selected` grows by one for each; known losses replace the last ones.

        The age stays: it counts from the scoring forward. A NaN loss replaces nothing.

        Args:
            losses: (n,) float, of the training pass.
        """
        ids = self._checked(ids)
        known = ids
        if losses is not None and self.loss is not None:
            losses = _values("losses", losses, len(ids))
            if (unknown := np.isnan(losses)).any():
                known, losses = ids[~unknown], losses[~unknown]
        with self._lock:
            if self.selected is not None:
                np.add.at(self.selected, ids, np.uint32(1))
            if losses is not None and self.loss is not None:
                self.loss[known] = losses

    @property
    def keeps_results(self) -> bool:
        """Whether `scored` has anything to keep."""
        return self.loss is not None or self.score is not None

    def losses_of(self, ids: np.ndarray) -> np.ndarray:
        """The last losses: (n,) float32, a copy, NaN = unknown. Raises ValueError where losses are not kept."""
        if self.loss is None:
            raise ValueError(f"losses need the field 'loss'; the ledger keeps {self.fields}")
        ids = self._checked(ids)
        with self._lock:
            return self.loss[ids]

    def _visit(self, age: np.ndarray, ids: np.ndarray, max_age: int) -> np.ndarray:
        """One visit to each of `ids`, which are distinct. The lock is held."""
        ages = age[ids]
        unknown = ages == NEVER
        if self.loss is not None:
            unknown |= np.isnan(self.loss[ids])
        needed = unknown | (ages >= max_age - 1)
        after = np.where(needed, np.uint8(0), ages + np.uint8(1))  # stays below max_age
        if len(first := np.flatnonzero(unknown)):
            after[first] = _first_ages(self._seed, ids[first], max_age)
        age[ids] = after
        return needed

    def _checked(self, ids: np.ndarray) -> np.ndarray:
        ids = np.asarray(ids)
        if ids.dtype != np.int64 or ids.ndim != 1:
            raise ValueError(f"sample ids must be (n,) int64, got {ids.shape} {ids.dtype}")
        if len(ids) and ids.view(np.uint64).max() >= self.num_samples:  # a negative id is a huge number, and no wrap
            raise IndexError(f"sample ids must be in [0, {self.num_samples}), got {ids.min()} to {ids.max()}")
        return ids

    # -- all samples --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of the kept arrays by name, all of one moment, for a checkpoint. They load with weights_only=True."""
        return {name: torch.from_numpy(array) for name, array in self._copies().items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what `state_dict` gave. Raises ValueError naming what does not fit, and then changes nothing."""
        if set(state) != set(self.fields):
            raise ValueError(f"the ledger keeps {list(self.fields)}, the state holds {list(state)}")
        arrays = {name: tensor.numpy(force=True) for name, tensor in state.items()}
        for name, array in self._arrays.items():
            wanted, given = (f"{one.shape} {one.dtype}" for one in (array, arrays[name]))
            if wanted != given:
                raise ValueError(f"ledger state: {name} must be {wanted}, got {given}")
        with self._lock:
            for name, array in self._arrays.items():
                array[:] = arrays[name]

    def save(self, path: Path) -> None:
        """Writes a .npz of the kept arrays and their names (`fields`): the old file or the new one, whole, is found."""
        arrays: dict[str, Any] = {"fields": np.array(self.fields, dtype="U8")} | self._copies()
        with replacing(path) as file:
            np.savez(file, **arrays)

    def _copies(self) -> dict[str, np.ndarray]:
        copies = {name: np.full_like(array, 0) for name, array in self._arrays.items()}  # faults the pages in, unlocked
        with self._lock:
            for name, array in self._arrays.items():
                copies[name][:] = array
        return copies


def load_ledger(path: Path) -> dict[str, np.ndarray]:
    """Reads what `Ledger.save` wrote: the kept arrays by name. Raises ValueError where it is not a whole ledger."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {str(name): file[str(name)] for name in file["fields"]}
    except (KeyError, AttributeError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a whole ledger file: {error}") from error
    num_samples = max((array.size for array in arrays.values()), default=0)
    for name, array in arrays.items():
        if name not in FIELDS or array.dtype != _EMPTY[name].dtype or array.shape != (num_samples,):
            raise ValueError(f"{path} is not a ledger file: it holds {name}, {array.shape} {array.dtype}")
    return arrays


def _first_ages(seed: int, ids: np.ndarray, max_age: int) -> np.ndarray:
    """Ages after the first forward, in [0, max_age): each once in a block of `max_age` ids, from a keyed start.

    So every epoch gets its share to within one id of the last block; independent draws would vary with √N.
    """
    blocks, places = np.divmod(ids, max_age)
    rotations = integers_below(keyed_uint64(seed, "first age in the ledger", blocks), max_age)
    return (places + rotations) % max_age


def _values(name: str, values: np.ndarray, num: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float32)
    if values.shape != (num,):
        raise ValueError(f"{name} must be ({num},), one for each id, got {values.shape}")
    return values
