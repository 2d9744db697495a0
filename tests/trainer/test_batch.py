"""Gathered batches: where the samples of a plain or a picked batch come from, and what is said about them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.source import Source, TensorSplit
from common.order import Order
from common.selection.method import Selection
from tests.trainer.chunks import scored
from tests.trainer.selectors import NUM, candidates_of, ids_at, losses, pick
from tests.trainer.test_candidates import payload
from trainer.batch import Gatherer, batch_of


def make_gatherer() -> Gatherer:
    inputs = torch.arange(NUM, dtype=torch.float32)[:, None].repeat(1, 2)
    source = Source("numbers", TensorSplit(inputs, torch.arange(NUM) % 3), None, 3)
    augmentation = Augmentation(AugmentOptions(), 0, source.sample)
    candidates = SampleReader(source, augmentation, Order(NUM, 0, "candidates"))
    plain = SampleReader(source, augmentation, Order(NUM, 0, "plain"))
    return Gatherer(source, candidates, plain, torch.device("cpu"))


def test_a_picked_batch_by_reference_holds_the_samples_at_those_positions() -> None:
    gatherer = make_gatherer()
    picked = pick(candidates_of([scored(20, scores=[3, 1, 2, 0], step=4)]), 3)
    batch = gatherer.picked_batch(picked, 9, "stale", 4)
    expected = Order(NUM, 0, "candidates").ids(np.array([23, 21, 22]))
    assert batch.ids.tolist() == expected.tolist() == batch.inputs[:, 0].tolist()
    assert batch.targets.tolist() == (expected % 3).tolist()
    assert batch.staleness.tolist() == [5, 5, 5]
    assert (batch.step, batch.origin, batch.num_candidates, len(batch)) == (9, "stale", 4, 3)
    assert batch.is_selected
    assert batch.scores.tolist() == batch.margins.tolist() == [0, 1, 2]


def test_samples_picked_by_reference_are_augmented_as_at_their_visit() -> None:
    inputs = torch.arange(NUM * 64, dtype=torch.int64).remainder(251).to(torch.uint8).view(NUM, 1, 8, 8)
    source = Source("pictures", TensorSplit(inputs, torch.arange(NUM) % 3), None, 3)
    augmentation = Augmentation(AugmentOptions(crop_padding=2, flip=True), 0, source.sample)
    reader = SampleReader(source, augmentation, Order(NUM, 0, "candidates"))
    gatherer = Gatherer(source, reader, reader, torch.device("cpu"))
    positions = np.array([5, 23 + 7, 2 * 23 + 1])
    picked = pick(candidates_of([scored(int(start), 1) for start in positions]), 3)
    batch = gatherer.picked_batch(picked, 0, "stale", 3)
    assert torch.equal(batch.inputs, source.prepare(reader.read(positions).inputs))
    assert not torch.equal(batch.inputs, source.prepare(reader.fetch(picked.ids, picked.visits + 1).inputs))


def test_a_picked_batch_of_payload_names_the_same_ids_without_reading() -> None:
    gatherer = make_gatherer()
    gatherer.candidates.read = gatherer.candidates.fetch = None  # type: ignore[method-assign,assignment]
    picked = pick(candidates_of([scored(20, scores=[3, 1, 2, 0], payload=payload(20, [0, 1, 2, 3]))]), 3)
    batch = gatherer.picked_batch(picked, 9, "stale", 4)
    assert batch.ids.tolist() == Order(NUM, 0, "candidates").ids(np.array([23, 21, 22])).tolist()
    assert batch.inputs[:, 0].tolist() == [23, 21, 22], "the samples that were shipped"


def test_a_plain_batch_is_not_selected_and_has_weights_of_one() -> None:
    batch = make_gatherer().plain_batch(np.arange(4), 3, "plain")
    assert batch.ids.tolist() == Order(NUM, 0, "plain").ids(np.arange(4)).tolist()
    assert not batch.is_selected
    assert batch.weights.tolist() == [1, 1, 1, 1]
    assert len(batch.staleness) == 0
    assert (len(batch.scores), len(batch.margins)) == (0, 0)
    assert math.isnan(batch.effective_size)


def test_a_shipped_batch_is_plain_and_names_the_ids_of_its_positions() -> None:
    batch = make_gatherer().shipped_batch(np.array([21, 30]), torch.ones(2, 2), torch.tensor([1, 2]), 3, "plain")
    assert batch.ids.tolist() == ids_at(21, 30).tolist()
    assert batch.targets.tolist() == [1, 2]
    assert not batch.is_selected


def test_remembered_scores_have_no_staleness() -> None:
    chunk = losses(0, [50, 51], step=4, wanted=[True, False, True, False])
    candidates = candidates_of([chunk], score="loss", remembered=lambda ids: np.ones(2, dtype=np.float32))
    batch = make_gatherer().picked_batch(pick(candidates, 3, method="loss"), 9, "stale", 4)
    assert len(batch) == 3
    assert batch.staleness.tolist() == [5, 5]


@pytest.mark.parametrize(("weights", "worth"), [([1, 1, 1, 1], 4.0), ([2, 2, 2], 3.0), ([3, 1], 1.6), ([5, 0, 0], 1.0)])
def test_the_effective_size_is_the_squared_sum_of_weights_over_the_sum_of_squares(
    weights: list[float], worth: float
) -> None:
    chosen = Selection(torch.arange(len(weights)), torch.tensor(weights, dtype=torch.float32))
    picked = candidates_of([scored(0)]).take(chosen)
    batch = batch_of(picked, torch.zeros(len(weights), 2), torch.zeros(len(weights)), picked.weights, 3, "stale", 4)
    assert batch.effective_size == pytest.approx(worth)
    assert batch.weights.tolist() == weights


def test_probabilities_and_weights_stay_with_their_samples() -> None:
    chosen = Selection(torch.tensor([2, 0]), torch.tensor([0.5, 2.0]), 0, torch.tensor([0.25, 0.75]))
    picked = candidates_of([scored(0)]).take(chosen)
    batch = make_gatherer().picked_batch(picked, 0, "fresh", 4)
    assert batch.ids.tolist() == ids_at(2, 0).tolist()
    assert batch.probability.tolist() == [0.25, 0.75]
    assert batch.weights.tolist() == [0.5, 2.0]
    assert replace(batch, origin="plain").is_selected is False
