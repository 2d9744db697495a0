"""How far the selection of a low precision agrees with that of float32, on a network trained for a while."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.order import Order
from common.scored import Scored
from common.scoring import score_candidates
from common.selection.agreement import selected_overlap
from tests.bench.forms import AUGMENT, Subject, reader

SCORES = {"mms": True, "loss": False}  # whether the lowest are hard
TRAIN_BATCH = 64


@dataclass(frozen=True)
class Agreement:
    """How it is measured: chunks of `candidates`, of which `selected` are."""

    steps: int = 500
    chunks: int = 30
    candidates: int = 640
    selected: int = 64


def train(subject: Subject, steps: int, lr: float = 0.1) -> float:
    """SGD on crops and mirror images with a rate falling to 0, in place. Returns the mean loss of the last tenth."""
    source, model = subject.source, subject.model
    num = source.sample.num_samples
    samples = SampleReader(source, Augmentation(AUGMENT, 0, source.sample), Order(num, 0, "plain"))
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses = []
    model.train()
    for step in range(steps):
        batch = samples.read(np.arange(step * TRAIN_BATCH, (step + 1) * TRAIN_BATCH))
        loss = F.cross_entropy(model(source.prepare(batch.inputs)), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return statistics.mean(losses[-max(1, steps // 10) :])


def measure_overlaps(subject: Subject, precisions: Sequence[str], agreement: Agreement) -> dict[str, dict[str, float]]:
    """Mean share of what float32 selects that the precision selects too: {precision: {score: share}}.

    Forms follow the trained weights and are calibrated once, on a chunk of their own, as a scorer calibrates them.
    """
    candidates = reader(subject.source, AugmentOptions())
    for precision in precisions:
        subject.forms[precision].refresh()
        subject.forms[precision].calibrate(subject.inputs)
    shares: dict[str, dict[str, list[float]]] = {precision: {name: [] for name in SCORES} for precision in precisions}
    for number in range(1, agreement.chunks + 1):
        samples = candidates.read(np.arange(number * agreement.candidates, (number + 1) * agreement.candidates))
        inputs = subject.source.prepare(samples.inputs)
        exact = score_candidates(subject.model, subject.head, inputs, samples.targets, list(SCORES))
        for precision in precisions:
            low = score_candidates(
                subject.model, subject.head, inputs, samples.targets, list(SCORES), forward=subject.forms[precision]
            )
            for name in SCORES:
                shares[precision][name].append(_overlap(name, exact, low, agreement.selected))
    return {precision: {name: statistics.mean(of[name]) for name in SCORES} for precision, of in shares.items()}


def _overlap(name: str, exact: Scored, low: Scored, num: int) -> float:
    return selected_overlap(exact.scores[name], low.scores[name], num, lowest_is_hard=SCORES[name])
