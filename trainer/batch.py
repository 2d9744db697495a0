"""What a training step gets, and how it is put together from positions or from shipped payload."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.data.reader import SampleReader
from common.data.source import Source
from common.shard import WHOLE, Shard
from trainer.candidates import NOT_STREAMED, Picked
from trainer.moving import NOW, Mover, Ready

Origin = Literal["plain", "fresh", "stale", "reused", "fallback"]


@dataclass(frozen=True)
class Batch:
    """One optimiser step's samples; the loss is mean(weights · losses).

    Attributes:
        inputs: (b, ...) prepared for the model, on the trainer's device.
        targets: (b, ...) int64, on the same device.
        weights: (b,) float32, on the same device.
        ids: (b,) int64 ids of the whole data set, on the CPU.
        step: optimiser steps completed before this batch.
        origin: plain (warm-up, annealing, uniform mode), fresh or stale (selected by score), reused (next-best of an
            earlier pool), fallback (a plain batch because too few candidates were ready).
        staleness: (n,) int64, step minus the step of the weights that scored each sample; without those whose score is
            remembered or that were not scored.
        num_candidates: samples that were offered for this step; 0 if nothing was selected.
        probability: (b,) float32 on the CPU, with which each was drawn; 1 where nothing was left to chance.
        effective_size: (Σw)²/Σw², how many equally weighted samples it is worth; NaN where nothing was selected.
        num_missing: samples fewer than were asked for, because too few candidates had a finite score. A sample that was
            drawn twice is one row and not missing.
        scores, margins: (b,) float32 on the CPU, of the method's score and of the minimal margin; NaN where unknown,
            empty where nothing was selected.
        ready: when the tensors on the device are; whoever hands the batch out waits for it on the training stream.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    ids: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    step: int
    origin: Origin
    staleness: "np.ndarray[tuple[int], np.dtype[np.int64]]" = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    num_candidates: int = 0
    probability: Tensor = field(default_factory=lambda: torch.ones(0))
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    margins: Tensor = field(default_factory=lambda: torch.empty(0))
    effective_size: float = math.nan
    num_missing: int = 0
    ready: Ready = NOW

    def await_ready(self) -> None:
        """Order the training stream behind the tensors; never blocks the thread."""
        self.ready.wait(self.inputs, self.targets, self.weights)

    @property
    def is_selected(self) -> bool:
        """Whether scores of this run chose these samples."""
        return self.origin in ("fresh", "stale", "reused")

    def __len__(self) -> int:
        return len(self.ids)


class Gatherer:
    """Puts batches together: reads and augments by position, moves to the trainer's device, normalises there.

    Runs on the feeder thread, beside the training step. Here local ids become those of the whole data set.

    Args:
        candidates: of this rank's shard.
        plain: of the whole data set.
    """

    def __init__(self, source: Source, candidates: SampleReader, plain: SampleReader, device: torch.device) -> None:
        self.source = source
        self.candidates = candidates
        self.plain = plain
        self.shard = candidates.shard
        self._mover = Mover(device)
        self.device = device

    def read_candidates(self, positions: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray, Ready]:
        """Prepared inputs, targets, local ids, and when they are ready."""
        with self._mover.beside():
            samples = self.candidates.read(positions)
            ids = self.shard.local_ids(samples.ids)
            return *self._prepared(samples.inputs, samples.targets), ids, self._mover.ready()

    def plain_batch(self, positions: np.ndarray, step: int, origin: Origin) -> Batch:
        """A batch of the plain order."""
        with self._mover.beside():
            samples = self.plain.read(positions)
            return self._unweighted(samples.inputs, samples.targets, samples.ids, step, origin)

    def shipped_batch(self, positions: np.ndarray, inputs: Tensor, targets: Tensor, step: int, origin: Origin) -> Batch:
        """A plain batch of samples that came as payload."""
        with self._mover.beside():
            ids = self.shard.global_ids(self.candidates.order.ids(positions))
            return self._unweighted(inputs, targets, ids, step, origin)

    def picked_batch(self, picked: Picked, step: int, origin: Origin, num_candidates: int) -> Batch:
        """A batch of selected candidates, by reference or out of the payload."""
        inputs, targets = picked.inputs, picked.targets
        with self._mover.beside():
            if inputs is None or targets is None:
                samples = self.candidates.fetch(picked.ids, picked.visits)
                inputs, targets = samples.inputs, samples.targets
            weights = self._mover.move(picked.weights)
            moved = (*self._prepared(inputs, targets), weights)
            return batch_of(picked, *moved, step, origin, num_candidates, self._mover.ready(), self.shard)

    def _prepared(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Raw samples to what the model takes; uint8 goes over the bus, normalisation happens on the device."""
        return self.source.prepare(self._mover.move(inputs)), self._mover.move(targets)

    def _unweighted(self, inputs: Tensor, targets: Tensor, ids: np.ndarray, step: int, origin: Origin) -> Batch:
        weights = torch.ones(len(ids), device=self._mover.device)
        inputs, targets = self._prepared(inputs, targets)
        return Batch(inputs, targets, weights, ids, step, origin, ready=self._mover.ready())


def batch_of(
    picked: Picked,
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor,
    step: int,
    origin: Origin,
    num_candidates: int,
    ready: Ready = NOW,
    shard: Shard = WHOLE,
) -> Batch:
    """A batch of selected candidates of a shard; prepared samples and weights are on the trainer's device."""
    steps = picked.version_steps
    return Batch(
        inputs,
        targets,
        weights,
        shard.global_ids(picked.ids),
        step,
        origin,
        step - steps[steps != NOT_STREAMED],
        num_candidates,
        picked.probability,
        picked.scores,
        picked.margins,
        _effective_size(picked.weights.numpy()),
        picked.num_missing,
        ready,
    )


def _effective_size(weights: np.ndarray) -> float:
    squares = float(np.square(weights, dtype=np.float64).sum())
    return float(weights.sum(dtype=np.float64)) ** 2 / squares if squares else 0.0
