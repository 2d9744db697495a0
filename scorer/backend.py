"""What computes a lease: the trainer's model, a smaller one, a predictor of losses, or a stand-in for tests.

| `--backend` | scores with | trained by |
|---|---|---|
| torch | the model, at the weights that the trainer pushes | the trainer |
| proxy | a smaller model of its own | itself, on what it scores; or frozen |
| predictor | past losses, without a forward pass of the model | FEEDBACK from the trainer |
| synthetic | seeded numbers, after a sleep | nobody |

All but the synthetic one need torch, and are imported where they are chosen: a synthetic scorer starts in a fraction of
a second and a tenth of the memory, for tests of protocol and scale.
"""

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from common.config import ScorerOptions
from common.errors import ConfigError
from common.order import keyed_uint64
from common.protocol import Array, Candidates, Feedback, Lease, PredictorState, Version, Weights, Welcome
from scorer.landing import Landing
from scorer.staging import StagedWeights


class Backend(Protocol):
    """Called by the main thread only, except `check_manifest`.

    Attributes:
        wants_weights: whether the trainer's weights are fetched, checked by `check_manifest` and loaded. If not,
            `version` is set for it before each `score`: the newest that the trainer announced.
        version: the stamp of the answers.
        precision: what it computes in; never "auto".
    """

    fingerprint: dict[str, str]
    device: str
    precision: str
    num_samples: int
    num_classes: int
    wants_weights: bool
    version: Version | None

    def check_manifest(self, message: Weights) -> Landing | None:
        """See `scorer.fetcher.Fetcher`."""
        ...

    def begin(self, welcome: Welcome) -> None:
        """A rank of a trainer welcomed this scorer: its shard, order, seed and scores hold for it from now on.

        Ranks of one generation are of one trainer, and are served in turns without beginning anew.
        """

    def load(self, staged: StagedWeights) -> None: ...

    def score(self, lease: Lease, welcome: Welcome) -> Candidates: ...


@runtime_checkable
class Together(Protocol):
    """A backend to which several leases are less work together than one by one."""

    @property
    def most_together(self) -> int:
        """Leases to do at a time: so many that the first one's answer is not late for the others' sake."""
        ...

    def score_together(self, leases: Sequence[Lease], welcome: Welcome) -> list[Candidates]:
        """The answers to leases of one session, none of them an audit."""
        ...


EMBEDDINGS = {"errors": 10, "features": 16}  # what the synthetic scorer sends, by columns


@runtime_checkable
class Learner(Protocol):
    """A backend that the trainer tells of true losses. Sample ids are those of the whole data set."""

    def learn(self, feedback: Feedback, rank: int = 0) -> PredictorState | None:
        """One step of training; now and then the parameters, for this rank to keep and hand on."""
        ...

    def load_state(self, state: PredictorState, rank: int = 0) -> None:
        """Take the parameters of whoever trained, of this rank."""
        ...


class SyntheticBackend:
    """Sleeps as long as it is told and sends seeded scores. For tests of protocol and scale."""

    device = "none"
    num_samples = 0
    num_classes = 0
    wants_weights = True

    def __init__(self, options: ScorerOptions) -> None:
        self.fingerprint: dict[str, str] = {}
        self.precision: str = "float32" if options.precision == "auto" else options.precision
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
        errors = features = None
        if welcome.embeddings:
            errors, features = (self._rows(name, positions, width) for name, width in EMBEDDINGS.items())
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
            errors=errors,
            features=features,
        )

    def _rows(self, name: str, positions: np.ndarray, width: int) -> Array:
        """(n, width) float16 in [0, 1)."""
        draws = keyed_uint64(self._seed, name, positions[:, None], np.arange(width))
        return Array.of(((draws >> np.uint64(54)) / 1024).astype(np.float16))


def make_backend(options: ScorerOptions) -> Backend:
    """The backend that was asked for."""
    if options.resolved_backend == "synthetic":
        return SyntheticBackend(options)
    if options.resolved_backend == "predictor":
        from scorer.predictor_backend import PredictorBackend

        return PredictorBackend(options)
    if options.resolved_backend == "proxy":
        from scorer.proxy_backend import ProxyBackend

        return ProxyBackend(options)
    from scorer.torch_backend import TorchBackend

    return TorchBackend(options)
