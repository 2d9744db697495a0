"""Updates by sample id where an id may come twice: numpy's assignment would keep one of the two."""

from collections.abc import Sequence

import numpy as np


def turns(ids: np.ndarray) -> Sequence[slice | np.ndarray]:
    """Parts of (n,) `ids` without repeats: the first visits of all ids, then the second ones, and so on."""
    ordered = np.sort(ids)
    if not (ordered[1:] == ordered[:-1]).any():
        return [slice(None)]  # the usual chunk
    number = np.empty_like(ids)
    number[np.argsort(ids, kind="stable")] = np.arange(len(ids)) - np.searchsorted(ordered, ordered)
    return [np.flatnonzero(number == turn) for turn in range(number.max() + 1)]
