"""Past losses of every sample and who learns to predict the next one, for biased importance sampling."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.predictor import HISTORY, LossPredictor, PredictorTraining
from trainer.repeats import turns

Ints = np.ndarray  # (n,) int64
Learner = Callable[[Ints, np.ndarray, np.ndarray], object]  # ids, losses, histories before these losses


class LossHistories:
    """The last ten losses of each sample, 40 bytes a sample: allocated for this method only. Thread-safe.

    Ids are local to the rank, also those that the learner is told of.

    Attributes:
        learner: told of each trained batch, with the histories as they were before it; any thread's `append`.
    """

    def __init__(self, num_samples: int, learner: Learner = lambda ids, losses, histories: None) -> None:
        self._losses = np.full((num_samples, HISTORY), np.nan, dtype=np.float32)
        self._lock = threading.Lock()
        self.learner = learner

    def of(self, ids: Ints) -> np.ndarray:
        """(n, 10) float32, the most recent last, NaN where there were fewer. A copy."""
        with self._lock:
            return self._losses[ids]

    def append(self, ids: Ints, losses: np.ndarray) -> None:
        """Losses of trained samples, (n,) float32; not finite ones are left out. Repeated ids count in their order."""
        kept = np.isfinite(losses)
        ids, losses = ids[kept], losses[kept]
        if len(ids) == 0:
            return
        before = np.empty((len(ids), HISTORY), dtype=np.float32)
        with self._lock:
            for turn in turns(ids):
                rows = ids[turn]
                before[turn] = self._losses[rows]
                self._losses[rows] = np.concatenate([before[turn][:, 1:], losses[turn][:, None]], axis=1)
        self.learner(ids, losses, before)

    def state_dict(self) -> dict[str, Tensor]:
        with self._lock:
            return {"losses": torch.from_numpy(self._losses.copy())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with self._lock:
            self._losses[:] = state["losses"].numpy()


class LocalPrediction:
    """Predicts and learns in the trainer, for fresh mode: one step of Adam for each training step.

    Args:
        targets_of: classes of ids.
    """

    def __init__(self, num_samples: int, num_classes: int, seed: int, targets_of: Callable[[Ints], Tensor]) -> None:
        self.histories = LossHistories(num_samples, self._learn)
        self._training = PredictorTraining(LossPredictor(num_classes, seed=seed))
        self._targets_of = targets_of

    def state_dict(self) -> dict[str, Any]:
        """Without the histories, which have a state of their own."""
        return self._training.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._training.load_state_dict(state)

    def predict(self, ids: Ints) -> Tensor:
        """(n,) float32 predicted losses."""
        return self._training.predictor.predict(torch.from_numpy(self.histories.of(ids)), self._targets_of(ids))

    def _learn(self, ids: Ints, losses: np.ndarray, histories: np.ndarray) -> None:
        self._training.update(torch.from_numpy(histories), self._targets_of(ids), torch.from_numpy(losses))
