"""What comes back for a lease: the scores of a chunk, and its samples if they were shipped."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from common.protocol import Version
from trainer.leases import Wanted


@dataclass(frozen=True)
class Payload:
    """Samples that came with their scores: `rows` (k,) int64 of the chunk, `inputs` (k, ...), `targets` (k, ...)."""

    rows: Tensor
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class ScoredChunk:
    """One chunk's scores, all of one weights version.

    Attributes:
        start, stop: positions.
        version: of the weights when the forward pass started.
        scores: (n,) float32 by name, NaN where the candidate was dropped or no score was wanted.
        wanted: (n,) bool, the positions that were scored; None for all. The others have a remembered score.
        loss_mean, accuracy: of the chunk, a uniform sample of the data; None where unknown.
        tau: how much less the gradient's variance would be under importance sampling; None where unknown.
        errors, features: (n, C) and (n, D) float16, factors of the last layer's gradients, if asked for.
    """

    start: int
    stop: int
    version: Version
    scores: dict[str, Tensor]
    wanted: Wanted = None
    loss_mean: float | None = None
    accuracy: float | None = None
    tau: float | None = None
    errors: Tensor | None = None
    features: Tensor | None = None
    payload: Payload | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def positions(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        return np.arange(self.start, self.stop)
