"""Scores with a smaller model of its own: trained beside the scoring, or frozen at weights from a file.

The trainer's weights never come here, so the stamp of an answer is the newest version that the trainer had announced
when its forward pass started.
"""

import time

import torch
from torch import Tensor, nn

from common.config import ScorerOptions
from common.data.fingerprint import data_fingerprint
from common.data.resident import resident
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.errors import ConfigError, ProtocolError, TrainingDiverged
from common.models import build_model, find_head, load_state
from common.models.loss import per_sample_loss
from common.protocol import Candidates, Lease, Version, Weights, Welcome
from common.scoring import score_candidates
from scorer.answers import make_answer
from scorer.readers import Readers
from scorer.staging import StagedWeights

MOMENTUM = 0.9


class ProxyBackend:
    """See `scorer.backend.Backend`. Unless frozen, it takes one step of SGD on a part of each chunk, after scoring it.

    Raises:
        ConfigError: the proxy's name or its file of weights does not fit.
    """

    wants_weights = False
    precision = "float32"

    def __init__(self, options: ScorerOptions) -> None:
        assert options.proxy_model is not None, "the options check that"
        set_threads(options.num_threads)
        self._device = pick_device(options.scorer_device, option="--scorer-device")
        self._options = options
        self._source = open_source(options)
        self._readers = Readers(options, resident(self._source, options.data_device, self._device))
        sample = self._source.sample
        self.fingerprint = data_fingerprint(self._source, options.augment)
        self.device = str(self._device)
        self.num_samples = sample.num_samples
        self.num_classes = sample.num_classes
        self.version: Version | None = None
        self._generation: int | None = None
        self._model = self._build(seed=0)
        self._optimizer: torch.optim.Optimizer | None = None
        if options.proxy_weights is not None:
            remedy = "save the proxy's with torch.save(model.state_dict(), FILE)"
            load_state(
                self._model, options.proxy_weights, option="--proxy-weights", remedy=remedy, what="--proxy-model"
            )

    def check_manifest(self, message: Weights) -> None:
        raise ProtocolError("a proxy has no use for weights")

    def begin(self, welcome: Welcome) -> None:
        self._readers.begin(welcome)
        if self._options.proxy_weights is not None or welcome.generation == self._generation:
            return  # frozen, or the same life of the same trainer: what was learned holds
        self._generation = welcome.generation
        self._model = self._build(seed=welcome.seed)
        self._optimizer = torch.optim.SGD(self._model.parameters(), self._options.proxy_lr, MOMENTUM)

    def load(self, staged: StagedWeights) -> None:
        raise AssertionError("weights were fetched for a proxy")

    def score(self, lease: Lease, welcome: Welcome) -> Candidates:
        assert self.version is not None, "a lease before any version was announced"
        started = time.perf_counter()
        samples = self._readers.of(welcome).read(lease.positions())
        read = time.perf_counter()
        inputs = self._source.prepare(samples.inputs.to(self._device))
        targets = samples.targets.to(self._device)
        head = find_head(self._model, None)
        scored = score_candidates(self._model, head, inputs, targets, welcome.scores, embeddings=welcome.embeddings)
        score_s = time.perf_counter() - read
        if self._optimizer is not None:
            if scored.num and bool(scored.dropped.all()):
                raise TrainingDiverged("the proxy finds no finite score in a whole chunk; lower --proxy-lr")
            rows = torch.arange(len(targets))[: max(1, round(self._options.proxy_train_fraction * len(targets)))]
            rows = rows[~scored.dropped[rows]].to(self._device)
            _train_step(self._model, self._optimizer, inputs[rows], targets[rows])
        return make_answer(lease, welcome, self.version, samples, scored, read_s=read - started, score_s=score_s)

    def _build(self, seed: int) -> nn.Module:
        name = self._options.proxy_model
        assert name is not None, "the options check that"
        try:
            return build_model(name, self._source.sample, seed=seed).to(self._device)
        except ConfigError as error:
            raise ConfigError(f"--proxy-model {name}: {error}") from error


def _train_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    has_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if len(targets) < 1 + has_norm:  # the variance of one sample is none
        return
    model.train()
    optimizer.zero_grad(set_to_none=True)
    per_sample_loss(model, model(inputs), targets).mean().backward()
    optimizer.step()
