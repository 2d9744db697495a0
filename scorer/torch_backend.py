"""Scores leases with the real model on the real data: fetch, augment, one forward pass."""

import time
from collections.abc import Sequence

from common.config import ScorerOptions
from common.data.fingerprint import data_fingerprint
from common.data.resident import resident
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.models import build_model, find_head
from common.precision.auto import choose_precision
from common.precision.forms import compiles
from common.protocol import Candidates, Lease, Version, Weights, Welcome
from common.scored import Scored
from common.weights import model_fingerprint
from scorer.answers import make_answer
from scorer.landing import Landing
from scorer.readers import Readers
from scorer.replica import Replica
from scorer.staging import StagedWeights

TOGETHER_S = 0.05  # that leases take together, at the most: half of what a trainer has a quick scorer hold
MOST_TOGETHER = 8  # however short they are: they need their memory at the same time
FIGURES_S = 0.1  # between two passes of a quick scorer that tell mean loss, accuracy and tau


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
            model,
            head,
            device,
            precision,
            compile=compile,
            recalibrate_every=options.recalibrate_every,
            normal=self._source.normal(device),
        )
        self.precision = precision
        self._may_join = precision != "float32" and not compile  # a captured pass wants chunks of one size
        self._chunk_s = 0.0  # that one took of late
        self._figured_at: dict[int, float] = {}  # by rank, by time.perf_counter
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

    @property
    def most_together(self) -> int:
        """See `scorer.backend.Together`. 1 in float32, whose scores do not depend on what a chunk is scored with."""
        if not self._may_join or not self._chunk_s:
            return 1
        return min(max(1, int(TOGETHER_S / self._chunk_s)), MOST_TOGETHER)

    def score(self, lease: Lease, welcome: Welcome) -> Candidates:
        return self.score_together([lease], welcome)[0]

    def score_together(self, leases: Sequence[Lease], welcome: Welcome) -> list[Candidates]:
        started = time.perf_counter()
        samples = self._readers.of(welcome).read_runs([lease.run() for lease in leases])
        read = time.perf_counter()
        version = self.version  # stamped as the forward pass starts; later would flatter the staleness
        assert version is not None, "a lease before weights"
        inputs, sizes = samples.inputs.to(self.device), [lease.num for lease in leases]
        if not self._replica.form.takes_bytes:
            inputs = self._source.prepare(inputs)
        is_audit = any(lease.is_audit for lease in leases)
        embeddings = welcome.embeddings and not is_audit
        figures = not self._may_join or started - self._figured_at.get(welcome.rank, -FIGURES_S) >= FIGURES_S
        scored = self._replica.score_parts(inputs, samples.targets, welcome.scores, sizes, embeddings, figures=figures)
        over = time.perf_counter()
        if figures:
            self._figured_at[welcome.rank] = started
        exact: Sequence[Scored | None] = [None] * len(leases)
        if is_audit and self.precision != "float32":
            prepared = self._source.prepare(inputs)
            exact = self._replica.score_parts(prepared, samples.targets, welcome.scores, sizes, exact=True)
        self._chunk_s = (over - started) / len(leases)
        read_s, score_s = (read - started) / max(1, len(samples)), (over - read) / max(1, len(samples))
        return [
            make_answer(
                lease, welcome, version, part, one, read_s=one.num * read_s, score_s=one.num * score_s, exact=fine
            )
            for lease, part, one, fine in zip(leases, samples.split(sizes), scored, exact, strict=True)
        ]
