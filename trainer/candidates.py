"""The candidates of one step, as a selection method sees them, and what was picked of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.order import Order
from common.selection.method import Offer, Selection
from trainer.chunks import ScoredChunk

Ints = np.ndarray  # (n,) int64

NOT_STREAMED = -1  # in place of a version's step, for scores that are remembered or of no version


@dataclass(frozen=True)
class Picked:
    """Samples to train on.

    Attributes:
        ids: (b,) int64, local to the rank.
        visits: (b,) int64, keys of their augmentation: the epoch of a position.
        version_steps: (b,) int64, step of the weights that scored each; NOT_STREAMED where none did now.
        weights: (b,) float32; the loss is mean(weights · losses).
        probability: (b,) float32 with which each was drawn; 1 where nothing was left to chance.
        scores: (b,) float32 of the method's score; margins: (b,) float32 minimal margin scores. NaN where unknown.
        inputs, targets: the samples themselves, if they came with their scores.
        num_missing: how many fewer could be picked than were asked for.
    """

    ids: Ints
    visits: Ints
    version_steps: Ints
    weights: Tensor
    probability: Tensor
    scores: Tensor
    margins: Tensor
    inputs: Tensor | None = None
    targets: Tensor | None = None
    num_missing: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, rows: np.ndarray) -> "Picked":
        """Some of them, by (n,) bool or int64."""
        index = torch.from_numpy(rows)
        return Picked(
            self.ids[rows],
            self.visits[rows],
            self.version_steps[rows],
            self.weights[index],
            self.probability[index],
            self.scores[index],
            self.margins[index],
            None if self.inputs is None else self.inputs[index],
            None if self.targets is None else self.targets[index],
        )

    @staticmethod
    def joined(parts: Sequence["Picked"]) -> "Picked":
        """One after the other, with their samples if all of them have them."""
        inputs = [part.inputs for part in parts if part.inputs is not None]
        targets = [part.targets for part in parts if part.targets is not None]
        have_samples = len(inputs) == len(targets) == len(parts)
        return Picked(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.visits for part in parts]),
            np.concatenate([part.version_steps for part in parts]),
            torch.cat([part.weights for part in parts]),
            torch.cat([part.probability for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.margins for part in parts]),
            torch.cat(inputs) if have_samples else None,
            torch.cat(targets) if have_samples else None,
        )


class CandidateSet:
    """The union of the chunks of one step. What was picked is not picked again, so the rest can be reused.

    Candidates whose payload was not shipped (`best:k`) cannot be trained on and count as dropped.

    Args:
        chunks: at least one.
        order: of the candidates.
        score_names: the scores that the method looks at.
        progress: of the run, for the method.
        targets_of: gives the classes of ids, for a method that looks at them.
        remembered: gives the last loss of ids, for positions that were not scored now.
    """

    def __init__(
        self,
        chunks: Sequence[ScoredChunk],
        order: Order,
        score_names: Sequence[str],
        *,
        progress: float = 0.0,
        targets_of: Callable[[Ints], Tensor] | None = None,
        remembered: Callable[[Ints], np.ndarray] | None = None,
    ) -> None:
        self._chunks = chunks
        self.ids = _joined_arrays([order.ids_between(chunk.start, chunk.stop) for chunk in chunks])
        self.visits = order.epochs(_joined_arrays([chunk.positions for chunk in chunks]))
        self.version_steps = _joined_arrays(
            [np.full(len(chunk), chunk.version.step, dtype=np.int64) for chunk in chunks]
        )
        scores = {name: _joined_tensors([_available(chunk, name) for chunk in chunks]) for name in score_names}
        missing = _unwanted(chunks)
        self.num_unwanted = 0 if missing is None else int(missing.sum())
        if remembered is not None and missing is not None:
            self.version_steps[missing] = NOT_STREAMED
            scores["loss"] = scores["loss"].clone()
            scores["loss"][torch.from_numpy(missing)] = torch.from_numpy(remembered(self.ids[missing]))
        self.margins = _joined_tensors([_scores(chunk, "mms") for chunk in chunks])
        self._taken: list[Tensor] = []
        self._offer = Offer(
            scores,
            torch.from_numpy(self.ids),
            epoch=int(self.visits[0]),
            progress=progress,
            targets=None if targets_of is None else targets_of(self.ids),
            errors=_joined([chunk.errors for chunk in chunks]),
            features=_joined([chunk.features for chunk in chunks]),
        )

    @property
    def offer(self) -> Offer:
        """What is left. What was taken is taken out here, for the step that asks again: most never do."""
        if self._taken:
            taken_B = torch.zeros(len(self), dtype=torch.bool)
            taken_B[torch.cat(self._taken)] = True
            self._offer, self._taken = self._offer.without(taken_B), []
        return self._offer

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first_position(self) -> int:
        return self._chunks[0].start

    def within(self, oldest_step: int) -> Offer:
        """What is left, of scores by weights of at least that step; remembered scores have an age of their own."""
        too_old = (self.version_steps < oldest_step) & (self.version_steps != NOT_STREAMED)
        return self.offer.without(torch.from_numpy(too_old)) if too_old.any() else self.offer

    def take(self, selection: Selection) -> Picked:
        """The selected ones, which are gone from the offer."""
        rows = selection.indices.numpy()
        scores = next(iter(self._offer.scores.values()), None)
        probability = selection.probability
        inputs, targets = self._shipped(rows)
        picked = Picked(
            self.ids[rows],
            self.visits[rows],
            self.version_steps[rows],
            selection.weights,
            torch.ones(len(rows)) if probability is None else probability,
            torch.full((len(rows),), torch.nan) if scores is None else scores[selection.indices],
            self.margins[selection.indices],
            inputs,
            targets,
            selection.num_missing,
        )
        self._taken.append(selection.indices)
        return picked

    def _shipped(self, rows: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        """The picked samples out of the payload, in the order of `rows`; None by reference."""
        if self._chunks[0].payload is None or len(rows) == 0:
            return None, None
        inputs, targets, offset = [], [], 0
        order = []
        for chunk in self._chunks:
            assert chunk.payload is not None, "chunks with and without payload in one step"
            place = np.full(len(chunk), -1, dtype=np.int64)
            place[chunk.payload.rows.numpy()] = np.arange(len(chunk.payload.rows))
            mine = np.flatnonzero((rows >= offset) & (rows < offset + len(chunk)))
            shipped = torch.from_numpy(place[rows[mine] - offset])
            inputs.append(chunk.payload.inputs[shipped])
            targets.append(chunk.payload.targets[shipped])
            order.append(mine)
            offset += len(chunk)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return torch.cat(inputs)[back], torch.cat(targets)[back]


def _scores(chunk: ScoredChunk, name: str) -> Tensor:
    scores = chunk.scores.get(name)
    return torch.full((len(chunk),), torch.nan) if scores is None else scores


def _available(chunk: ScoredChunk, name: str) -> Tensor:
    """The scores of what can be trained on, maybe the chunk's own: to be read only."""
    scores = _scores(chunk, name)
    if chunk.payload is None or len(chunk.payload.rows) == len(chunk):
        return scores
    shipped = torch.full_like(scores, torch.nan)
    shipped[chunk.payload.rows] = scores[chunk.payload.rows]
    return shipped


def _unwanted(chunks: Sequence[ScoredChunk]) -> np.ndarray | None:
    """(B,) bool: positions whose score is remembered; None where there are none, which is the usual case."""
    if all(chunk.wanted is None for chunk in chunks):
        return None
    unwanted = _joined_arrays(
        [np.zeros(len(chunk), dtype=bool) if chunk.wanted is None else ~chunk.wanted for chunk in chunks]
    )
    return unwanted if unwanted.any() else None


def _joined_arrays(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _joined_tensors(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _joined_tensors(present) if len(present) == len(parts) else None
