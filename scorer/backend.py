"""What computes a lease: torch with the real model and data, or a stand-in that only keeps the protocol busy.

Only `TorchBackend` needs torch, and it is imported where it is chosen: a synthetic scorer starts in a fraction of a
second and a tenth of the memory, for tests of protocol and scale.
"""

import time
from typing import Protocol

import numpy as np

from common.config import ScorerOptions
from common.errors import ConfigError
from common.order import keyed_uint64
from common.protocol import Array, Candidates, Lease, Version, Weights, Welcome
from scorer.staging import StagedWeights


class Backend(Protocol):
    """Called by the main thread only, except `check_manifest`."""

    fingerprint: dict[str, str]
    device: str
    num_samples: int
    num_classes: int
    version: Version | None

    def check_manifest(self, message: Weights) -> None: ...

    def begin(self, welcome: Welcome) -> None:
        """A trainer welcomed this scorer: its order, seed and scores hold from now on."""

    def load(self, staged: StagedWeights) -> None: ...

    def score(self, lease: Lease, welcome: Welcome) -> Candidates: ...


class SyntheticBackend:
    """Sleeps as long as it is told and sends seeded scores. For tests of protocol and scale."""

    device = "none"
    num_samples = 0
    num_classes = 0

    def __init__(self, options: ScorerOptions) -> None:
        self.fingerprint: dict[str, str] = {}
        self._chunk_s = options.synthetic_backend.chunk_s
        self._seed = options.synthetic_backend.seed
        self.version: Version | None = None

    def check_manifest(self, message: Weights) -> None:
        """Any weights will do."""

    def begin(self, welcome: Welcome) -> None:
        if welcome.transfer == "payload":
            raise ConfigError("--backend synthetic has no tensors to send; use --transfer reference at the trainer")

    def load(self, staged: StagedWeights) -> None:
        self.version = staged.version

    def score(self, lease: Lease, welcome: Welcome) -> Candidates:
        assert self.version is not None, "a lease before weights"
        time.sleep(self._chunk_s)
        positions = lease.positions()
        scores = tuple(
            (keyed_uint64(self._seed, name, positions) >> np.uint64(40)).astype(np.float32) for name in welcome.scores
        )
        return Candidates(
            lease=lease.lease,
            version=self.version,
            num=len(positions),
            dropped=b"",
            scores=tuple(Array.of(one) for one in scores),
            loss_mean=None,
            accuracy=None,
            read_s=0.0,
            score_s=self._chunk_s,
        )


def make_backend(options: ScorerOptions) -> Backend:
    """The backend that was asked for."""
    if options.backend == "synthetic":
        return SyntheticBackend(options)
    from scorer.torch_backend import TorchBackend

    return TorchBackend(options)
