"""Fresh mode: Algorithm 1 of the MMS paper, candidates scored by the trainer with its current weights.

The feeder reads candidates ahead; scoring and selecting wait for the current weights, so the training thread does them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.config.shared import RECALIBRATE_EVERY
from common.errors import TrainingDiverged
from common.precision.calibration import Calibration
from common.precision.form import Form
from common.protocol import Version
from common.scored import Scored
from common.scoring import score_candidates
from trainer.assembly import Assembly
from trainer.batch import Batch, Gatherer, batch_of
from trainer.candidates import Picked
from trainer.chunks import Payload, ScoredChunk
from trainer.curves import UniformCandidates
from trainer.leases import Pace
from trainer.moving import NOW, Ready
from trainer.plan import Plan
from trainer.sourcing import PlainBatches

MAX_DRAWS = 64  # chunks that a stream may reject before its step makes do with what there is


@dataclass(frozen=True)
class Chunk:
    """Candidates of positions [start, stop), prepared and on the device: `inputs` (n, ...), `targets` (n, ...).

    `ids` (n,) int64 are local to the rank.
    """

    start: int
    stop: int
    inputs: Tensor
    targets: Tensor
    ids: np.ndarray
    ready: Ready = NOW


@dataclass(frozen=True)
class FreshCandidates:
    """A step that selects, and the chunks that were read ahead for it, in the order of their positions."""

    chunks: list[Chunk]

    def __len__(self) -> int:
        return sum(len(chunk.ids) for chunk in self.chunks)


class FreshSourcing:
    """Consecutive candidates of the same order that scorers would be leased. Owned by the feeder thread.

    Args:
        draws_ahead: chunks that each step takes; 0 for a stream, whose steps take as many as they need.
        pace: of a method that scores all samples now and then; None for one that scores candidates step by step.
    """

    def __init__(
        self,
        plan: Plan,
        plain: PlainBatches,
        gatherer: Gatherer,
        *,
        chunk_size: int,
        draws_ahead: int,
        pace: Pace | None = None,
    ) -> None:
        self._plan = plan
        self._plain = plain
        self._gatherer = gatherer
        self._chunk_size = chunk_size
        self._draws_ahead = draws_ahead
        self._pace = pace
        self.next_position = 0
        self.device = gatherer.device

    def prepare(self, step: int) -> Batch | FreshCandidates:
        if not self._plan.selects(step):
            return self._plain.next(step)
        return FreshCandidates([self.draw() for _ in range(self._draws_ahead)])

    def due(self, step: int) -> Iterator[Chunk]:
        """What a sweep over all samples has come to by this step. One at a time: at first that is the whole data set.

        For the training thread; nothing is drawn ahead then.
        """
        while self._pace is not None and self.next_position < self._pace.position_limit(step):
            yield self.draw()

    def draw(self) -> Chunk:
        """The next chunk. The training thread may call it where the feeder draws nothing ahead."""
        start = self.next_position
        self.next_position += self._chunk_size
        return self.read(start)

    def read(self, start: int) -> Chunk:
        """The chunk that begins at a position, drawn before."""
        stop = start + self._chunk_size
        return Chunk(start, stop, *self._gatherer.read_candidates(np.arange(start, stop)))

    def state_dict(self) -> dict[str, Any]:
        return {"next_position": self.next_position, "plain": self._plain.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.next_position = state["next_position"]
        self._plain.load_state_dict(state["plain"])


class FreshSelecting:
    """Scores candidates with the weights as they are and makes batches of the selected ones. Training thread only.

    Args:
        assembly: the method, the queue, the ledger, and what they ask for.
        uniform: gets loss, accuracy and tau of the candidates.
        form: what scores in another precision than the model's own; follows the weights, step by step.
        recalibrate_every: see `common.precision.calibration.Calibration`.

    Attributes:
        precision: of the forward passes that score.
    """

    def __init__(
        self,
        assembly: Assembly,
        sourcing: FreshSourcing,
        gatherer: Gatherer,
        model: nn.Module,
        head: nn.Linear,
        uniform: UniformCandidates,
        *,
        batch_size: int,
        form: Form | None = None,
        recalibrate_every: int = RECALIBRATE_EVERY,
    ) -> None:
        self._assembly = assembly
        self._selector = assembly.selector
        self._sourcing = sourcing
        self._gatherer = gatherer
        self._model = model
        self._head = head
        self._uniform = uniform
        self._batch_size = batch_size
        self._form = form
        self._calibration = None if form is None else Calibration(form, recalibrate_every)
        self.precision = "float32" if form is None else form.precision
        self.num_scored = 0

    def batch(self, candidates: FreshCandidates, step: int) -> Batch:
        """The batch of a step.

        Raises:
            TrainingDiverged: no candidate has a finite score.
        """
        if self._form is not None and self._calibration is not None:
            self._form.refresh()
            self._calibration.weights_changed()
        offered = self._selector.offer([self._score(chunk, step) for chunk in candidates.chunks], step)
        for chunk in self._sourcing.due(step):
            offered += self._selector.offer([self._score(chunk, step)], step)
        picked, draws = self._selector.pick(step), 0
        if self._selector.kind == "stream":
            while picked is None and draws < MAX_DRAWS:
                offered += self._selector.offer([self._score(self._sourcing.draw(), step)], step)
                picked, draws = self._selector.pick(step), draws + 1
            if picked is None:
                picked = self._selector.queue.take_all(self._batch_size, step)
        if picked is None or len(picked) == 0:
            raise TrainingDiverged(
                f"step {step}: none of {offered} candidates has a finite score; lower --lr or set --optim.clip-norm"
            )
        return self._batch_of(picked, step, offered)

    def _batch_of(self, picked: Picked, step: int, offered: int) -> Batch:
        if picked.inputs is None or picked.targets is None:
            return self._gatherer.picked_batch(picked, step, "fresh", offered)
        weights, shard = picked.weights.to(picked.targets.device), self._gatherer.shard
        return batch_of(picked, picked.inputs, picked.targets, weights, step, "fresh", offered, shard=shard)

    def _score(self, chunk: Chunk, step: int) -> ScoredChunk:
        chunk.ready.wait(chunk.inputs, chunk.targets)
        wanted = self._assembly.plan_visit(chunk.start, chunk.stop)
        whole = ScoredChunk(
            chunk.start,
            chunk.stop,
            Version(0, step),
            {},
            wanted,
            payload=Payload(torch.arange(len(chunk.ids)), chunk.inputs, chunk.targets),
        )
        if self._assembly.prediction is not None:  # instead of a forward pass of the model
            return replace(whole, scores={self._assembly.score_names[0]: self._assembly.prediction.predict(chunk.ids)})
        rows = None if wanted is None else torch.from_numpy(np.flatnonzero(wanted))
        if rows is not None and len(rows) == 0:
            return whole
        inputs = chunk.inputs if rows is None else chunk.inputs[rows]
        targets = chunk.targets if rows is None else chunk.targets[rows]
        if self._calibration is not None:
            self._calibration.before(inputs)
        scored = score_candidates(
            self._model,
            self._head,
            inputs,
            targets,
            self._assembly.score_names,
            embeddings=self._assembly.embeddings,
            forward=self._form,
        )
        self.num_scored += scored.num
        self._uniform.add(scored.num, scored.loss_mean, scored.accuracy, scored.tau)
        scores = _spread(scored, rows, len(chunk.ids))
        return replace(whole, scores=scores, errors=scored.errors, features=scored.features)


def _spread(scored: Scored, rows: Tensor | None, num: int) -> dict[str, Tensor]:
    """Scores at their places of the whole chunk, NaN at the others."""
    if rows is None:
        return scored.scores
    return {name: torch.full((num,), torch.nan).index_put((rows,), row) for name, row in scored.scores.items()}
