"""Scores leases with the real model on the real data: fetch, augment, one forward pass."""

import time

import torch

from common.arrays import as_array
from common.config import ScorerOptions
from common.data.augment import Augmentation
from common.data.fingerprint import data_fingerprint
from common.data.reader import SampleReader, Samples
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.models import build_model, find_head
from common.order import Order
from common.protocol import Array, Candidates, Lease, Version, Weights, Welcome, pack_mask
from common.scoring import Scored
from common.selection.select import highest, lowest
from common.weights import model_fingerprint
from scorer.replica import Replica
from scorer.staging import StagedWeights


class TorchBackend:
    """See `scorer.backend.Backend`."""

    def __init__(self, options: ScorerOptions) -> None:
        set_threads(options.num_threads)
        device = pick_device(options.scorer_device, option="--scorer-device")
        self._augment = options.augment
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
        self._replica = Replica(model, head, device, options.precision)
        self._reader: SampleReader | None = None
        self.version: Version | None = None

    def check_manifest(self, message: Weights) -> None:
        self._replica.check_manifest(message)

    def begin(self, welcome: Welcome) -> None:
        augmentation = Augmentation(self._augment, welcome.seed, self._source.sample)
        self._reader = SampleReader(
            self._source, augmentation, Order(self._source.sample.num_samples, welcome.seed, "candidates")
        )

    def load(self, staged: StagedWeights) -> None:
        self._replica.load(staged)
        self.version = staged.version

    def score(self, lease: Lease, welcome: Welcome) -> Candidates:
        assert self._reader is not None, "a lease before the welcome"
        started = time.perf_counter()
        samples = self._reader.read(lease.positions())
        read = time.perf_counter()
        version = self.version  # stamped as the forward pass starts; later would flatter the staleness
        assert version is not None, "a lease before weights"
        scored = self._replica.score(self._source.prepare(samples.inputs), samples.targets, welcome.scores)
        done = time.perf_counter()
        rows, inputs, targets = _payload(samples, scored, welcome)
        return Candidates(
            lease=lease.lease,
            version=version,
            num=scored.num,
            dropped=pack_mask(scored.dropped.numpy()) if bool(scored.dropped.any()) else b"",
            scores=tuple(as_array(torch.nan_to_num(scored.scores[name])) for name in welcome.scores),
            loss_mean=_finite(scored.loss_mean),
            accuracy=_finite(scored.accuracy),
            read_s=read - started,
            score_s=done - read,
            rows=rows,
            inputs=inputs,
            targets=targets,
        )


def _finite(value: float) -> float | None:
    return value if torch.isfinite(torch.tensor(value)) else None


def _payload(samples: Samples, scored: Scored, welcome: Welcome) -> tuple[Array | None, Array | None, Array | None]:
    """Tensors to ship: none by reference, every candidate, or the hardest `best_k` by the first score."""
    if welcome.transfer == "reference":
        return None, None, None
    if welcome.best_k is None:
        return None, as_array(samples.inputs), as_array(samples.targets)
    scores = torch.where(scored.dropped, float("nan"), scored.scores[welcome.scores[0]])
    rows = (lowest if welcome.lowest_is_hard else highest)(scores, welcome.best_k)
    return as_array(rows.int()), as_array(samples.inputs[rows]), as_array(samples.targets[rows])
