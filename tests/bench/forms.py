"""Forward passes of a model in each precision: their speed beside the bare float32 loop, and a chunk in parts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.source import Source
from common.errors import ConfigError
from common.models import build_model, find_head
from common.order import Order
from common.precision.form import Form
from common.precision.forms import make_form
from common.scoring import score_candidates
from tests.bench.measure import Pairs

AUGMENT = AugmentOptions(crop_padding=4, flip=True)
NUM_PART_CHUNKS = 9


@dataclass
class Subject:
    """A model with one chunk of candidates, and its forms in the precisions that this machine offers.

    Attributes:
        refused: precision to why there is no form in it.
    """

    name: str
    source: Source
    batch: int
    model: nn.Module = field(init=False)
    head: nn.Linear = field(init=False)
    inputs: Tensor = field(init=False)
    forms: dict[str, Form] = field(init=False, default_factory=dict)
    refused: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.model = build_model(self.name, self.source.sample, seed=0, head=None).eval()
        self.head = find_head(self.model)
        self.inputs = self.source.prepare(reader(self.source, AugmentOptions()).read(np.arange(self.batch)).inputs)

    def make_forms(self, precisions: Sequence[str]) -> None:
        normal = self.source.normal(self.head.weight.device)
        for precision in precisions:
            try:
                self.forms[precision] = make_form(self.model, self.head, precision, normal=normal)
            except ConfigError as error:
                self.refused[precision] = str(error)
            else:
                self.forms[precision].calibrate(self.inputs)

    def bare_s(self, block_s: float) -> Callable[[], float]:
        """Seconds a batch of the plain eager loop in float32, over a block."""
        return _block(lambda: self.model(self.inputs), block_s)

    def form_s(self, precision: str, block_s: float) -> Callable[[], float]:
        """Seconds a batch of the form in a precision, over a block."""
        return _block(lambda: self.forms[precision](self.inputs), block_s)

    def speedup(self, precision: str, num_pairs: int, block_s: float) -> Pairs:
        """Pairs of (bare float32, form) seconds a batch: the ratio is how many times faster the form is."""
        return Pairs.measure(num_pairs, self.bare_s(block_s), self.form_s(precision, block_s))


def reader(source: Source, augment: AugmentOptions) -> SampleReader:
    """Candidates as a scorer reads them."""
    num = source.sample.num_samples
    return SampleReader(source, Augmentation(augment, 0, source.sample), Order(num, 0, "candidates"))


def measure_parts(subject: Subject, precision: str) -> list[tuple[str, str]]:
    """Rows for the table: what each part of scoring one chunk takes, also as a share of the forward pass.

    A form that takes bytes prepares them in its forward pass.
    """
    readers = reader(subject.source, AugmentOptions()), reader(subject.source, AUGMENT)
    form, spent = subject.forms[precision], dict.fromkeys(("read", "augment", "prepare", "forward", "score"), 0.0)
    for number in range(NUM_PART_CHUNKS + 1):
        positions = np.arange(number * subject.batch, (number + 1) * subject.batch)
        times = [time.perf_counter()]
        samples = readers[0].read(positions)
        times.append(time.perf_counter())
        readers[1].augmentation(samples.inputs, readers[1].order.epochs(positions), samples.ids)
        times.append(time.perf_counter())
        inputs = samples.inputs if form.takes_bytes else subject.source.prepare(samples.inputs)
        times.append(time.perf_counter())
        with torch.inference_mode():
            outputs = form(inputs)
        times.append(time.perf_counter())
        score_candidates(
            subject.model, subject.head, inputs, samples.targets, ["mms"], forward=lambda _, given=outputs: given
        )
        times.append(time.perf_counter())
        if number:  # the first one warms up
            for part, seconds in zip(spent, np.diff(times), strict=True):
                spent[part] += seconds / NUM_PART_CHUNKS
    return [(part, f"{1e3 * s:.3f} ms, {s / spent['forward']:.1%} of the forward pass") for part, s in spent.items()]


def _block(batch: Callable[[], object], block_s: float) -> Callable[[], float]:
    """Times blocks of as many calls as fill about `block_s`, after a warm-up of two."""
    with torch.inference_mode():
        batch()
        started = time.perf_counter()
        batch()
    num = max(1, round(block_s / (time.perf_counter() - started)))

    def timed() -> float:
        with torch.inference_mode():
            started = time.perf_counter()
            for _ in range(num):
                batch()
            return (time.perf_counter() - started) / num

    return timed
