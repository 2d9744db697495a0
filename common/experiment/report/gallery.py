"""The samples that a run selected most and least often, out of its gallery.npz.

k = samples of a group, C = classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.experiment.report.arrays import read_arrays

FILE = "gallery.npz"
GROUPS = {"most": "selected most often", "least": "selected least often"}
_COLUMNS = ("ids", "inputs", "targets", "losses", "seen", "selected")


@dataclass(frozen=True)
class Sample:
    """One sample: inputs as the source stores them, counts of being a candidate and of being selected."""

    id: int
    inputs: np.ndarray
    target: int | None
    loss: float
    seen: int
    selected: int

    def pixels(self) -> np.ndarray | None:
        """(H, W) or (H, W, 3) uint8 if the sample is an image."""
        if self.inputs.dtype != np.uint8 or self.inputs.ndim != 3 or self.inputs.shape[0] not in (1, 3):
            return None
        return self.inputs[0] if len(self.inputs) == 1 else np.ascontiguousarray(self.inputs.transpose(1, 2, 0))


@dataclass(frozen=True)
class Gallery:
    """The two groups, and (C,) int64 counts by class."""

    groups: dict[str, list[Sample]]
    class_seen: np.ndarray
    class_selected: np.ndarray
    class_names: tuple[str, ...]

    def class_name(self, number: int | None) -> str:
        """The class as people call it; its number where it has no name."""
        if number is None:
            return "–"
        return self.class_names[number] if 0 <= number < len(self.class_names) else str(number)

    def selection_frequency(self) -> np.ndarray | None:
        """(C,) selected / seen of each class over that of all; NaN for a class never seen; None if nothing was."""
        seen, selected = self.class_seen.astype(np.float64), self.class_selected.astype(np.float64)
        if not seen.sum() or not selected.sum():
            return None
        overall = selected.sum() / seen.sum()
        return np.divide(selected, seen * overall, out=np.full(len(seen), np.nan), where=seen > 0)


def load_gallery(folder: Path) -> Gallery | None:
    """The gallery of a run; None if it has none.

    Raises:
        ConfigError: the file is damaged.
    """
    arrays = read_arrays(folder / FILE)
    if arrays is None:
        return None
    groups = {}
    for group in GROUPS:
        columns = [arrays.get(f"{group}_{column}") for column in _COLUMNS]
        if any(column is None for column in columns):
            continue
        groups[group] = [
            _sample(*row) for row in zip(*(column for column in columns if column is not None), strict=True)
        ]
    names = arrays.get("class_names")
    empty = np.zeros(0, np.int64)
    return Gallery(
        groups,
        arrays.get("class_seen", empty),
        arrays.get("class_selected", empty),
        tuple(map(str, names)) if names is not None else (),
    )


def _sample(
    id_: np.integer, inputs: np.ndarray, target: np.ndarray, loss: np.floating, seen: np.integer, selected: np.integer
) -> Sample:
    one_class = int(target) if np.ndim(target) == 0 else None
    return Sample(int(id_), inputs, one_class, float(loss), int(seen), int(selected))
