"""Scores leases with the real model on the real data: fetch, augment, one forward pass."""

import time

from common.config import ScorerOptions
from common.data.fingerprint import data_fingerprint
from common.data.resident import resident
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.models import build_model, find_head
from common.precision.auto import choose_precision
from common.precision.forms import compiles
from common.protocol import Candidates, Lease, Version, Weights, Welcome
from common.weights import model_fingerprint
from scorer.answers import make_answer
from scorer.landing import Landing
from scorer.readers import Readers
from scorer.replica import Replica
from scorer.staging import StagedWeights


class TorchBackend:
    """See `scorer.backend.Backend`."""

    wants_weights = True

    def __init__(self, options: ScorerOptions) -> None:
        set_threads(options.num_threads)
        device = pick_device(options.scorer_device, option="--scorer-device")
        self._source = open_source(options)
        sample = self._source.sample
        model = build_model(options.model, sample, seed=0, head=options.head)
        head = find_head(model, options.head)
        self.fingerprint = {
            "model": model_fingerprint(model),
            **data_fingerprint(self._source, options.augment),
        }
        self.device = str(device)
        self.num_samples = sample.num_samples
        self.num_classes = sample.num_classes
        model = model.to(device)
        precision: str = options.precision
        if precision == "auto":
            precision = choose_precision(model, head, self._source, compile=options.compile)
        compile = options.compile and compiles(precision)
        self._replica = Replica(
            model, head, device, precision, compile=compile, recalibrate_every=options.recalibrate_every
        )
        self.precision = precision
        self._readers = Readers(options, resident(self._source, options.data_device, device))
        self._generation: int | None = None
        self.version: Version | None = None

    def check_manifest(self, message: Weights) -> Landing | None:
        return self._replica.check_manifest(message)

    def begin(self, welcome: Welcome) -> None:
        self._readers.begin(welcome)
        if welcome.rank == 0 or welcome.generation != self._generation:  # the weights are rank 0's
            self._replica.begin()
        self._generation = welcome.generation

    def load(self, staged: StagedWeights) -> None:
        self._replica.load(staged)
        self.version = staged.version

    def score(self, lease: Lease, welcome: Welcome) -> Candidates:
        started = time.perf_counter()
        samples = self._readers.of(welcome).read(lease.positions())
        read = time.perf_counter()
        version = self.version  # stamped as the forward pass starts; later would flatter the staleness
        assert version is not None, "a lease before weights"
        inputs = self._source.prepare(samples.inputs.to(self.device))
        scored = self._replica.score(inputs, samples.targets, welcome.scores, welcome.embeddings and not lease.is_audit)
        score_s = time.perf_counter() - read
        exact = None
        if lease.is_audit and self.precision != "float32":
            exact = self._replica.score(inputs, samples.targets, welcome.scores, exact=True)
        return make_answer(
            lease, welcome, version, samples, scored, read_s=read - started, score_s=score_s, exact=exact
        )
