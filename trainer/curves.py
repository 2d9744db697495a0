"""Means between two log lines: of uniform candidates, which say how training goes, and of what was selected of them."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.batch import Batch

NUM_SMALLEST = 10  # margins of a batch that the curve of arXiv:1911.06996 is the mean of
NUM_RECENT = 20  # batches that a picture of what was selected shows
NUM_PENDING = 16  # batches that are looked at together, with warm caches: one at a time costs five times as much


@dataclass
class Means:
    """Weighted means by name since they were last taken; what is None or not a number does not count."""

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, name: str, value: float | None, weight: float = 1.0) -> None:
        if value is not None and math.isfinite(value):
            total, weights = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (total + weight * value, weights + weight)

    def take(self) -> dict[str, float]:
        """The means of the names that got a value, which then start anew."""
        sums, self.sums = self.sums, {}
        return {name: total / weights for name, (total, weights) in sums.items() if weights}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.sums)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = {name: (total, weights) for name, (total, weights) in state.items()}


class UniformCandidates:
    """Loss, accuracy and τ over candidates before selection: an unbiased view of the training data, for free."""

    def __init__(self) -> None:
        self._means = Means()

    def add(self, num: int, loss_mean: float | None, accuracy: float | None, tau: float | None) -> None:
        self._means.add("loss/uniform", loss_mean, num)
        self._means.add("accuracy/uniform", accuracy, num)
        self._means.add("selection/tau", tau, num)

    def take(self) -> dict[str, float]:
        """Means since the last call, by curve; without those that have no samples."""
        return self._means.take()

    def state_dict(self) -> dict[str, Any]:
        return self._means.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._means.load_state_dict(state)


class SelectedSamples:
    """What selected batches are like. Owned by the training thread; looks at nothing on the device.

    Args:
        is_noisy: marks ids whose label is known to be wrong; None where nobody knows.

    Attributes:
        recent: steps completed with, and ids of, the last of these batches.
    """

    def __init__(self, is_noisy: Callable[[np.ndarray], np.ndarray | None]) -> None:
        self._is_noisy = is_noisy
        self._means = Means()
        self._pending: list[tuple[Tensor, float, np.ndarray]] = []
        self.recent: deque[tuple[int, np.ndarray]] = deque(maxlen=NUM_RECENT)

    def add(self, batch: Batch) -> None:
        if not batch.is_selected:
            return
        self.recent.append((batch.step + 1, batch.ids))
        self._pending.append((batch.margins, batch.effective_size, batch.ids))
        if len(self._pending) == NUM_PENDING:
            self._look()

    def _look(self) -> None:
        pending, self._pending = self._pending, []
        for margins_of, effective_size, ids in pending:
            margins = margins_of.numpy()  # numpy: on so few numbers a tenth of torch's time
            margins = margins[np.isfinite(margins)]
            if len(margins):
                self._means.add("selection/mean_margin", float(np.sort(margins)[:NUM_SMALLEST].mean()))
            self._means.add("selection/effective_size", effective_size)
            noisy = self._is_noisy(ids)
            if noisy is not None:
                self._means.add("selection/noisy_fraction", float(noisy.mean()), len(noisy))

    def take(self) -> dict[str, float]:
        """Means since the last call, by curve: the mean of each batch's ten smallest margins among them."""
        self._look()
        return self._means.take()

    def state_dict(self) -> dict[str, Any]:
        self._look()
        return {
            "means": self._means.state_dict(),
            "recent": [(step, torch.from_numpy(ids)) for step, ids in self.recent],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._means.load_state_dict(state["means"])
        self.recent.clear()
        self.recent.extend((step, ids.numpy()) for step, ids in state["recent"])
