"""Predicts losses from past ones and learns from true ones: scoring costs no forward pass of the model.

After Katharopoulos & Fleuret 2017, arXiv:1706.00043; see `common.predictor`. Inputs of samples are never read.
"""

import logging
import time
from dataclasses import dataclass

import torch

from common.arrays import as_array
from common.config import ScorerOptions
from common.data.fingerprint import data_fingerprint
from common.data.sources import open_source
from common.devices import set_threads
from common.errors import ConfigError, ProtocolError
from common.order import Order
from common.predictor import HISTORY, LossPredictor, PredictorTraining
from common.protocol import (
    DEFAULT_LIMITS,
    Candidates,
    Feedback,
    Lease,
    PredictorState,
    Version,
    Weights,
    Welcome,
    pack_mask,
)
from common.shard import Shard
from scorer.staging import StagedWeights

log = logging.getLogger(__name__)

SCORES = ("predicted-loss",)
STATE_EVERY = 100  # updates between two copies of the parameters to the trainer


@dataclass
class Share:
    """What one rank of a trainer has here: the order of its samples, and a predictor that learns from its losses."""

    shard: Shard
    order: Order
    training: PredictorTraining


class PredictorBackend:
    """See `scorer.backend.Backend` and `Learner`. A predictor starts from the run's seed, in every scorer alike.

    Each rank of a trainer has one of its own: with one for all, the parameters that a rank hands on would undo what
    was learned from another's losses.

    Raises:
        ConfigError: the data have no classes to look up, or too many.
    """

    wants_weights = False
    device = "cpu"
    precision = "float32"

    def __init__(self, options: ScorerOptions) -> None:
        set_threads(options.num_threads)
        self._source = open_source(options)
        sample = self._source.sample
        if sample.target_shape != ():
            raise ConfigError(
                f"--backend predictor needs one class for each sample, --data {options.data} has targets of shape "
                f"{sample.target_shape}"
            )
        num_bytes = LossPredictor(sample.num_classes, seed=0).num_state_bytes
        if num_bytes > DEFAULT_LIMITS.max_state_bytes:
            raise ConfigError(
                f"--backend predictor: for {sample.num_classes} classes its parameters take {num_bytes} bytes, and at "
                f"most {DEFAULT_LIMITS.max_state_bytes} travel; use another --method"
            )
        self.fingerprint = data_fingerprint(self._source, options.augment)
        self.num_samples = sample.num_samples
        self.num_classes = sample.num_classes
        self.version: Version | None = None
        self._shares: dict[int, Share] = {}  # by rank
        self._life: tuple[int, int] | None = None
        _warm_up(sample.num_classes)

    def check_manifest(self, message: Weights) -> None:
        raise ProtocolError("a predictor of losses has no use for weights")

    def begin(self, welcome: Welcome) -> None:
        if welcome.scores != SCORES:
            raise ConfigError(
                f"--backend predictor scores {SCORES[0]}, and this run wants {', '.join(welcome.scores)}; "
                "use --backend torch, or --method biased-importance at the trainer"
            )
        if self._life != (life := (welcome.generation, welcome.num_ranks)):
            self._life = life
            self._shares.clear()
        shard = Shard(welcome.rank, welcome.num_ranks)
        order, known = shard.candidates(welcome.num_samples, welcome.seed), self._shares.get(welcome.rank)
        if known is None:
            training = PredictorTraining(LossPredictor(self.num_classes, seed=welcome.seed))
        else:
            training = known.training  # the same life of the same trainer: what was learned holds
        self._shares[welcome.rank] = Share(shard, order, training)

    def load(self, staged: StagedWeights) -> None:
        raise AssertionError("weights were fetched for a predictor of losses")

    def score(self, lease: Lease, welcome: Welcome) -> Candidates:
        share = self._share_of(welcome.rank)
        assert self.version is not None, "a lease before any version was announced"
        if lease.histories is None:
            raise ProtocolError(
                f"lease {lease.lease} brings no histories, and past losses are all that a predictor has"
            )
        started = time.perf_counter()
        ids = share.shard.global_ids(share.order.ids(lease.positions()))
        targets = self._source.targets(torch.from_numpy(ids))
        read = time.perf_counter()
        predicted = share.training.predictor.predict(torch.from_numpy(lease.histories.as_numpy().copy()), targets)
        dropped = ~predicted.isfinite()
        return Candidates(
            lease=lease.lease,
            version=self.version,
            num=len(targets),
            dropped=pack_mask(dropped.numpy()) if bool(dropped.any()) else b"",
            scores=(as_array(torch.nan_to_num(predicted)),),
            loss_mean=None,
            accuracy=None,
            read_s=read - started,
            score_s=time.perf_counter() - read,
        )

    def learn(self, feedback: Feedback, rank: int = 0) -> PredictorState | None:
        training = self._share_of(rank).training
        ids = feedback.ids.as_numpy()
        if feedback.num and ids.max() >= self.num_samples:
            log.warning("feedback of sample %d left out: there are %d", ids.max(), self.num_samples)
            return None
        error = training.update(
            torch.from_numpy(feedback.histories.as_numpy().copy()),
            self._source.targets(torch.from_numpy(ids.copy())),
            torch.from_numpy(feedback.losses.as_numpy().copy()),
        )
        updates = training.num_updates
        if error is None or updates % STATE_EVERY:
            return None
        log.info("predictor: %d updates, squared error %.4f", updates, error)
        return PredictorState(updates, training.predictor.flat_state().tobytes())

    def load_state(self, state: PredictorState, rank: int = 0) -> None:
        """Parameters that do not fit are left out, with a warning: another scorer must not be able to end this one."""
        training = self._share_of(rank).training
        try:
            training.predictor.load_flat_state(state.parameters())
        except ValueError as error:
            log.warning("parameters of the predictor left out: %s", error)
            return
        training.num_updates = state.updates

    def _share_of(self, rank: int) -> Share:
        assert rank in self._shares, "work before the welcome"
        return self._shares[rank]


def _warm_up(num_classes: int) -> None:
    """One update and one prediction for nothing: the first ones take seconds, which a short run would wait in vain."""
    training = PredictorTraining(LossPredictor(num_classes, seed=0))
    histories, targets = torch.zeros(1, HISTORY), torch.zeros(1, dtype=torch.int64)
    training.update(histories, targets, torch.ones(1))
    training.predictor.predict(histories, targets)
