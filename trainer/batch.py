"""What a training step gets, and how it is put together from positions or from shipped payload."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.data.reader import SampleReader
from common.data.source import Source
from common.selection.method import Method
from trainer.pool import ScoredChunk

Origin = Literal["plain", "fresh", "stale", "reused", "fallback"]


@dataclass(frozen=True)
class Batch:
    """One optimiser step's samples; the loss is mean(weights · losses).

    Attributes:
        inputs: (b, ...) prepared for the model, on the trainer's device.
        targets: (b, ...) int64, on the same device.
        weights: (b,) float32, on the same device.
        ids: (b,) int64 sample ids, on the CPU.
        step: optimiser steps completed before this batch.
        origin: plain (warm-up, annealing, uniform mode), fresh or stale (selected by score), reused (next-best of an
            earlier pool), fallback (a plain batch because too few candidates were ready).
        staleness: (b,) int64, step minus the step of the weights that scored each sample; empty if not scored.
        num_candidates: samples that were offered for this step; 0 if nothing was selected.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    ids: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    step: int
    origin: Origin
    staleness: "np.ndarray[tuple[int], np.dtype[np.int64]]" = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    num_candidates: int = 0

    @property
    def is_selected(self) -> bool:
        """Whether scores of this run chose these samples."""
        return self.origin in ("fresh", "stale", "reused")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Picked:
    """Selected rows of a candidate set: positions, scoring steps and, as payload, the samples themselves."""

    positions: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    version_steps: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    weights: Tensor
    inputs: Tensor | None = None
    targets: Tensor | None = None


class CandidateSet:
    """The union of the chunks of one step. What was picked is not picked again, so the rest can be reused.

    Candidates whose payload was not shipped (`best:k`) cannot be trained on and count as dropped.
    """

    def __init__(self, chunks: list[ScoredChunk]) -> None:
        self._chunks = chunks
        self.positions = np.concatenate([chunk.positions for chunk in chunks])
        self.version_steps = np.concatenate(
            [np.full(chunk.stop - chunk.start, chunk.version.step, dtype=np.int64) for chunk in chunks]
        )
        self.scores = torch.cat([_available(chunk) for chunk in chunks])

    def __len__(self) -> int:
        return len(self.positions)

    def pick(self, method: Method, num: int, *, oldest_step: int = 0) -> Picked:
        """Select up to `num` candidates scored with weights of at least `oldest_step`; fewer if fewer are left."""
        scores = self.scores
        if oldest_step > self.version_steps.min():
            scores = scores.where(torch.from_numpy(self.version_steps >= oldest_step), torch.nan)
        selection = method.select(scores, num)
        self.scores[selection.indices] = torch.nan
        rows = selection.indices.numpy()
        inputs, targets = self._shipped(rows)
        return Picked(self.positions[rows], self.version_steps[rows], selection.weights, inputs, targets)

    def _shipped(self, rows: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        """The picked samples out of the payload, in the order of `rows`; None by reference."""
        if self._chunks[0].payload is None or len(rows) == 0:
            return None, None
        inputs, targets, offset = [], [], 0
        order = []
        for chunk in self._chunks:
            assert chunk.payload is not None, "chunks with and without payload in one step"
            num = chunk.stop - chunk.start
            place = np.full(num, -1, dtype=np.int64)
            place[chunk.payload.rows.numpy()] = np.arange(len(chunk.payload.rows))
            mine = np.flatnonzero((rows >= offset) & (rows < offset + num))
            shipped = torch.from_numpy(place[rows[mine] - offset])
            inputs.append(chunk.payload.inputs[shipped])
            targets.append(chunk.payload.targets[shipped])
            order.append(mine)
            offset += num
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return torch.cat(inputs)[back], torch.cat(targets)[back]


def _available(chunk: ScoredChunk) -> Tensor:
    if chunk.payload is None:
        return chunk.scores.clone()
    shipped = torch.full_like(chunk.scores, torch.nan)
    shipped[chunk.payload.rows] = chunk.scores[chunk.payload.rows]
    return shipped


class Gatherer:
    """Puts batches together: reads and augments by position, normalises, moves to the trainer's device.

    Runs on the feeder thread, beside the training step.
    """

    def __init__(self, source: Source, candidates: SampleReader, plain: SampleReader, device: torch.device) -> None:
        self._source = source
        self.candidates = candidates
        self.plain = plain
        self._device = device

    def to_device(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Raw samples to what the model takes; normalisation happens on the device."""
        return self._source.prepare(inputs.to(self._device)), targets.to(self._device)

    def plain_batch(self, positions: np.ndarray, step: int, origin: Origin) -> Batch:
        """A batch of the plain order."""
        samples = self.plain.read(positions)
        inputs, targets = self.to_device(samples.inputs, samples.targets)
        return Batch(inputs, targets, torch.ones(len(samples), device=self._device), samples.ids, step, origin)

    def shipped_batch(self, positions: np.ndarray, inputs: Tensor, targets: Tensor, step: int, origin: Origin) -> Batch:
        """A plain batch of samples that came as payload."""
        ids = self.candidates.order.ids(positions)
        inputs, targets = self.to_device(inputs, targets)
        return Batch(inputs, targets, torch.ones(len(ids), device=self._device), ids, step, origin)

    def picked_batch(self, picked: Picked, step: int, origin: Origin, num_candidates: int) -> Batch:
        """A batch of selected candidates, by reference or out of the payload."""
        if picked.inputs is None or picked.targets is None:
            samples = self.candidates.read(picked.positions)
            ids, inputs, targets = samples.ids, samples.inputs, samples.targets
        else:
            ids, inputs, targets = self.candidates.order.ids(picked.positions), picked.inputs, picked.targets
        inputs, targets = self.to_device(inputs, targets)
        staleness = step - picked.version_steps
        return Batch(inputs, targets, picked.weights.to(self._device), ids, step, origin, staleness, num_candidates)
