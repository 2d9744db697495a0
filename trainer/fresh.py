"""Fresh mode: Algorithm 1 of the MMS paper, candidates scored by the trainer with its current weights.

The feeder reads candidates ahead; scoring and selecting wait for the current weights, so the training thread does them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import TrainingDiverged
from common.scoring import score_candidates
from common.selection.method import Method
from trainer.batch import Batch, Gatherer
from trainer.figures import UniformCandidates
from trainer.plan import Plan
from trainer.sourcing import PlainBatches


@dataclass(frozen=True)
class FreshCandidates:
    """Candidates of one step, prepared, to be scored by the training thread with its current weights.

    Attributes:
        chunks: (chunk_size, ...) inputs and targets on the device, in the order of positions.
        ids: (B,) int64.
    """

    chunks: list[tuple[Tensor, Tensor]]
    ids: np.ndarray


class FreshSourcing:
    """Fresh mode: consecutive candidates of the same order that scorers would be leased."""

    def __init__(
        self, plan: Plan, plain: PlainBatches, gatherer: Gatherer, *, num_candidates: int, chunk_size: int
    ) -> None:
        self._plan = plan
        self._plain = plain
        self._gatherer = gatherer
        self._num_candidates = num_candidates
        self._chunk_size = chunk_size
        self.next_position = 0

    def prepare(self, step: int) -> Batch | FreshCandidates:
        if not self._plan.selects(step):
            return self._plain.next(step)
        start, self.next_position = self.next_position, self.next_position + self._num_candidates
        chunks, ids = [], []
        for first in range(start, self.next_position, self._chunk_size):
            samples = self._gatherer.candidates.read(np.arange(first, first + self._chunk_size))
            chunks.append(self._gatherer.to_device(samples.inputs, samples.targets))
            ids.append(samples.ids)
        return FreshCandidates(chunks, np.concatenate(ids))


def select_fresh(
    candidates: FreshCandidates,
    step: int,
    model: nn.Module,
    head: nn.Linear,
    method: Method,
    batch_size: int,
    uniform: UniformCandidates,
) -> Batch:
    """Score the candidates with the weights as they are and keep the selected ones.

    Args:
        uniform: gets loss and accuracy of the candidates.
    """
    assert method.score is not None, "uniform training selects nothing"
    scores = []
    for inputs, targets in candidates.chunks:
        scored = score_candidates(model, head, inputs, targets, [method.score])
        uniform.add(scored.num, scored.loss_mean, scored.accuracy)
        scores.append(scored.scores[method.score])
    selection = method.select(torch.cat(scores), batch_size)
    if len(selection.indices) == 0:
        raise TrainingDiverged(
            f"step {step}: none of {len(candidates.ids)} candidates has a finite score; lower --lr or set "
            "--optim.clip-norm"
        )
    rows = selection.indices.to(candidates.chunks[0][0].device)
    inputs = torch.cat([chunk[0] for chunk in candidates.chunks])[rows]
    targets = torch.cat([chunk[1] for chunk in candidates.chunks])[rows]
    ids = candidates.ids[selection.indices.numpy()]
    weights = selection.weights.to(rows.device)
    return Batch(inputs, targets, weights, ids, step, "fresh", np.zeros_like(ids), len(candidates.ids))
