"""Candidate sets and gathered batches: the union of chunks, what is picked from it, and where its samples come from."""

import numpy as np
import pytest
import torch

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.source import Source, TensorSplit
from common.order import Order
from common.selection.methods import METHODS
from tests.trainer.chunks import scored
from trainer.batch import CandidateSet, Gatherer
from trainer.pool import Payload

NAN = float("nan")
MMS, LOSS = METHODS["mms"], METHODS["loss"]
NUM = 23


def payload(start: int, rows: list[int]) -> Payload:
    """Samples that say at which position they belong."""
    positions = start + torch.tensor(rows, dtype=torch.int64)
    return Payload(torch.tensor(rows, dtype=torch.int64), positions[:, None].float().repeat(1, 3), positions * 10)


def make_gatherer() -> Gatherer:
    inputs = torch.arange(NUM, dtype=torch.float32)[:, None].repeat(1, 2)
    source = Source("numbers", TensorSplit(inputs, torch.arange(NUM) % 3), None, 3)
    augmentation = Augmentation(AugmentOptions(), 0, source.sample)
    candidates = SampleReader(source, augmentation, Order(NUM, 0, "candidates"))
    plain = SampleReader(source, augmentation, Order(NUM, 0, "plain"))
    return Gatherer(source, candidates, plain, torch.device("cpu"))


def test_the_lowest_margins_of_all_chunks_together_are_picked() -> None:
    candidates = CandidateSet([scored(0, scores=[5, 1, 7, 3], step=2), scored(8, scores=[4, 9, 0, 6], step=3)])
    picked = candidates.pick(MMS, 4)
    assert picked.positions.tolist() == [10, 1, 3, 8]
    assert picked.version_steps.tolist() == [3, 2, 2, 3]
    assert picked.weights.tolist() == [1, 1, 1, 1]
    assert picked.inputs is None


def test_the_highest_losses_are_picked() -> None:
    assert CandidateSet([scored(0, scores=[5, 1, 7, 3])]).pick(LOSS, 2).positions.tolist() == [2, 0]


def test_what_was_picked_is_not_picked_again() -> None:
    candidates = CandidateSet([scored(0, scores=[5, 1, 7, 3])])
    assert candidates.pick(MMS, 3).positions.tolist() == [1, 3, 0]
    assert candidates.pick(MMS, 3).positions.tolist() == [2]
    assert candidates.pick(MMS, 3).positions.tolist() == []


def test_dropped_candidates_are_never_picked() -> None:
    candidates = CandidateSet([scored(0, scores=[NAN, 1, NAN, 3])])
    assert candidates.pick(MMS, 4).positions.tolist() == [1, 3]


def test_candidates_scored_before_the_oldest_step_are_passed_over_and_stay() -> None:
    candidates = CandidateSet([scored(0, scores=[0, 1, 2, 3], step=4), scored(4, scores=[4, 5, 6, 7], step=5)])
    assert candidates.pick(MMS, 2, oldest_step=5).positions.tolist() == [4, 5]
    assert candidates.pick(MMS, 2, oldest_step=4).positions.tolist() == [0, 1]


def test_picking_leaves_the_scores_of_the_chunks_alone() -> None:
    chunk = scored(0, scores=[5, 1, 7, 3])
    CandidateSet([chunk]).pick(MMS, 4)
    assert chunk.scores.tolist() == [5, 1, 7, 3]


def test_a_payload_of_all_gives_the_picked_samples_in_the_order_of_selection() -> None:
    chunks = [
        scored(0, scores=[5, 1, 7, 3], payload=payload(0, [0, 1, 2, 3])),
        scored(8, scores=[4, 9, 0, 6], payload=payload(8, [0, 1, 2, 3])),
    ]
    picked = CandidateSet(chunks).pick(MMS, 4)
    assert picked.positions.tolist() == [10, 1, 3, 8]
    assert picked.inputs[:, 0].tolist() == [10, 1, 3, 8]
    assert picked.targets.tolist() == [100, 10, 30, 80]


def test_a_payload_of_the_best_in_any_order_offers_those_and_no_others() -> None:
    chunks = [
        scored(0, scores=[5, 1, 7, 3], payload=payload(0, [3, 1])),
        scored(8, scores=[4, 9, 0, 6], payload=payload(8, [2, 0])),
    ]
    candidates = CandidateSet(chunks)
    picked = candidates.pick(MMS, 3)
    assert picked.positions.tolist() == [10, 1, 3]
    assert picked.inputs[:, 2].tolist() == [10, 1, 3]
    rest = candidates.pick(MMS, 3)
    assert rest.positions.tolist() == [8], "candidates without their samples cannot be trained on"
    assert rest.targets.tolist() == [80]


def test_a_payload_of_nothing_gives_nothing() -> None:
    picked = CandidateSet([scored(0, scores=[NAN] * 4, payload=payload(0, []))]).pick(MMS, 3)
    assert len(picked.positions) == 0


@pytest.mark.parametrize("seed", range(5))
def test_reference_and_payload_pick_the_same_samples(seed: int) -> None:
    draw = np.random.default_rng(seed)
    by_reference, by_payload = [], []
    for start in (0, 16, 4):
        scores = draw.permutation(4).astype(float).tolist()
        by_reference.append(scored(start, scores=scores))
        by_payload.append(scored(start, scores=scores, payload=payload(start, draw.permutation(4).tolist())))
    expected, got = CandidateSet(by_reference).pick(MMS, 7), CandidateSet(by_payload).pick(MMS, 7)
    assert got.positions.tolist() == expected.positions.tolist() == got.inputs[:, 1].tolist()


def test_a_picked_batch_by_reference_holds_the_samples_at_those_positions() -> None:
    gatherer = make_gatherer()
    picked = CandidateSet([scored(20, scores=[3, 1, 2, 0], step=4)]).pick(MMS, 3)
    batch = gatherer.picked_batch(picked, 9, "stale", 4)
    expected = Order(NUM, 0, "candidates").ids(np.array([23, 21, 22]))
    assert batch.ids.tolist() == expected.tolist() == batch.inputs[:, 0].tolist()
    assert batch.targets.tolist() == (expected % 3).tolist()
    assert batch.staleness.tolist() == [5, 5, 5]
    assert (batch.step, batch.origin, batch.num_candidates, len(batch)) == (9, "stale", 4, 3)
    assert batch.is_selected


def test_a_picked_batch_of_payload_names_the_same_ids_without_reading() -> None:
    gatherer = make_gatherer()
    gatherer.candidates.read = None  # type: ignore[method-assign,assignment]
    picked = CandidateSet([scored(20, scores=[3, 1, 2, 0], payload=payload(20, [0, 1, 2, 3]))]).pick(MMS, 3)
    batch = gatherer.picked_batch(picked, 9, "stale", 4)
    assert batch.ids.tolist() == Order(NUM, 0, "candidates").ids(np.array([23, 21, 22])).tolist()
    assert batch.inputs[:, 0].tolist() == [23, 21, 22], "the samples that were shipped"


def test_a_plain_batch_is_not_selected_and_has_weights_of_one() -> None:
    batch = make_gatherer().plain_batch(np.arange(4), 3, "plain")
    assert batch.ids.tolist() == Order(NUM, 0, "plain").ids(np.arange(4)).tolist()
    assert not batch.is_selected
    assert batch.weights.tolist() == [1, 1, 1, 1]
    assert len(batch.staleness) == 0
