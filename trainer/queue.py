"""The queue of a stream method: samples whose coin fell right, until there are enough of them for a batch."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trainer.candidates import NOT_STREAMED, Picked


class SampleQueue:
    """First in, first out; what has become too stale leaves unused. Owned by the thread that selects.

    Args:
        max_staleness: bound on step - version step, at the step that trains.
        class_quota: the largest share of a batch that one class may fill; what is over waits for the next one.
        capacity: the most that wait; beyond it the first leave unused. A quota may turn one class down again and again.
        rereads: whether samples that came with their scores can also be read here, so that a saved queue need not
            hold them.
    """

    def __init__(
        self, max_staleness: int, class_quota: float | None = None, *, capacity: int = 1 << 16, rereads: bool = True
    ) -> None:
        self._capacity = capacity
        self._max_staleness = max_staleness
        self._class_quota = class_quota
        self._rereads = rereads
        self._waiting: Picked | None = None
        self._classes = np.empty(0, dtype=np.int64)
        self.num_expired = 0

    def __len__(self) -> int:
        return 0 if self._waiting is None else len(self._waiting)

    def add(self, picked: Picked, classes: np.ndarray | None = None) -> None:
        """Append; `classes` (n,) int64 are needed for a quota."""
        if len(picked) == 0:
            return
        if self._class_quota is not None:
            assert classes is not None, "a quota needs classes"
            self._classes = np.concatenate([self._classes, classes])
        self._waiting = picked if self._waiting is None else Picked.joined([self._waiting, picked])
        if (over := len(self._waiting) - self._capacity) > 0:
            self.num_expired += over
            self._keep(np.arange(len(self._waiting)) >= over)

    def take(self, num: int, step: int) -> Picked | None:
        """The first `num` that may be trained at `step`; None if there are fewer."""
        return self._take(num, step, at_least=num)

    def take_all(self, num: int, step: int) -> Picked | None:
        """As many of the first `num` as there are and as the quota of such a batch allows; None if there are none."""
        return self._take(num, step, at_least=1)

    def _take(self, num: int, step: int, *, at_least: int) -> Picked | None:
        self._expire(step)
        if self._waiting is None or len(self._waiting) < at_least:
            return None
        chosen = np.arange(len(self._waiting))[:num] if self._class_quota is None else self._within_quota(num)
        if len(chosen) < at_least:
            return None
        taken = self._waiting.rows(chosen)
        rest = np.ones(len(self._waiting), dtype=bool)
        rest[chosen] = False
        self._keep(rest)
        return replace(taken, num_missing=num - len(taken))

    def _expire(self, step: int) -> None:
        if self._waiting is None:
            return
        steps = self._waiting.version_steps
        fresh = (step - steps <= self._max_staleness) | (steps == NOT_STREAMED)
        if not fresh.all():
            self.num_expired += int((~fresh).sum())
            self._keep(fresh)

    def _keep(self, rows: np.ndarray) -> None:
        assert self._waiting is not None, "nothing to keep"
        self._waiting = self._waiting.rows(rows) if rows.any() else None
        self._classes = self._classes[rows] if self._class_quota is not None else self._classes

    def _within_quota(self, num: int) -> np.ndarray:
        most = math.ceil(round((self._class_quota or 1.0) * num, 6))  # 0.28 · 100 is a little more than 28
        order = np.argsort(self._classes, kind="stable")
        ranked = self._classes[order]
        first = np.searchsorted(ranked, ranked)  # where each class begins
        rank_in_class = np.empty(len(order), dtype=np.int64)
        rank_in_class[order] = np.arange(len(order)) - first
        return np.flatnonzero(rank_in_class < most)[:num]

    def state_dict(self) -> dict[str, Tensor]:
        """By reference: the samples are read anew. Where they cannot be, they are saved too."""
        waiting = self._waiting
        counts = {"num_expired": torch.tensor(self.num_expired)}
        if waiting is None:
            return counts
        samples: dict[str, Tensor] = {}
        if waiting.inputs is not None and waiting.targets is not None and not self._rereads:
            samples = {"inputs": waiting.inputs.clone(), "targets": waiting.targets.clone()}
        return {
            **counts,
            **samples,
            "ids": torch.from_numpy(waiting.ids.copy()),
            "visits": torch.from_numpy(waiting.visits.copy()),
            "version_steps": torch.from_numpy(waiting.version_steps.copy()),
            "weights": waiting.weights.clone(),
            "probability": waiting.probability.clone(),
            "scores": waiting.scores.clone(),
            "margins": waiting.margins.clone(),
            "classes": torch.from_numpy(self._classes.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._waiting, self._classes = None, self._classes[:0]
        self.num_expired = int(state["num_expired"])
        if "ids" in state:
            self._classes = state["classes"].numpy().copy()
            self._waiting = Picked(
                state["ids"].numpy().copy(),
                state["visits"].numpy().copy(),
                state["version_steps"].numpy().copy(),
                state["weights"].clone(),
                state["probability"].clone(),
                state["scores"].clone(),
                state["margins"].clone(),
                state["inputs"].clone() if "inputs" in state else None,
                state["targets"].clone() if "targets" in state else None,
            )
