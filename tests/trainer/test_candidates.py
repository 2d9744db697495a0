"""Candidate sets: the union of chunks, what is picked of it, in which order, and what is remembered."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.protocol import Version
from common.selection.method import Selection
from tests.trainer.chunks import GENERATION, scored
from tests.trainer.selectors import candidates_of, ids_at, losses, make_ledger, make_order, pick, positions_of
from trainer.candidates import NOT_STREAMED, CandidateSet, Picked
from trainer.chunks import Payload, ScoredChunk

NAN = float("nan")


def payload(start: int, rows: list[int]) -> Payload:
    """Samples that say at which position they belong."""
    positions = start + torch.tensor(rows, dtype=torch.int64)
    return Payload(torch.tensor(rows, dtype=torch.int64), positions[:, None].float().repeat(1, 3), positions * 10)


def selection(*indices: int) -> Selection:
    return Selection(torch.tensor(indices), torch.ones(len(indices)))


def test_the_lowest_margins_of_all_chunks_together_are_picked() -> None:
    candidates = candidates_of([scored(0, scores=[5, 1, 7, 3], step=2), scored(8, scores=[4, 9, 0, 6], step=3)])
    picked = pick(candidates, 4)
    assert positions_of(picked) == [10, 1, 3, 8]
    assert picked.ids.tolist() == ids_at(10, 1, 3, 8).tolist()
    assert picked.version_steps.tolist() == [3, 2, 2, 3]
    assert picked.weights.tolist() == picked.probability.tolist() == [1, 1, 1, 1]
    assert picked.scores.tolist() == picked.margins.tolist() == [0, 1, 3, 4]
    assert picked.inputs is None


def test_the_highest_losses_are_picked() -> None:
    assert positions_of(pick(candidates_of([losses(0, [5, 1, 7, 3])], score="loss"), 2, method="loss")) == [2, 0]


def test_visits_are_the_epochs_of_positions() -> None:
    candidates = candidates_of([scored(20, scores=[3, 0, 1, 2]), scored(44, scores=[7, 6, 5, 4])])
    picked = pick(candidates, 8)
    assert positions_of(picked) == [21, 22, 23, 20, 47, 46, 45, 44]
    assert picked.visits.tolist() == [0, 0, 1, 0, 2, 2, 1, 1]
    assert candidates.offer.epoch == 0, "of the first candidate"
    assert candidates_of([scored(46)]).offer.epoch == 2


def test_what_was_picked_is_not_picked_again() -> None:
    candidates = candidates_of([scored(0, scores=[5, 1, 7, 3])])
    assert positions_of(pick(candidates, 3)) == [1, 3, 0]
    assert positions_of(pick(candidates, 3)) == [2]
    assert positions_of(pick(candidates, 3)) == []


def test_dropped_candidates_are_never_picked() -> None:
    assert positions_of(pick(candidates_of([scored(0, scores=[NAN, 1, NAN, 3])]), 4)) == [1, 3]


def test_candidates_scored_before_the_oldest_step_are_passed_over_and_stay() -> None:
    candidates = candidates_of([scored(0, scores=[0, 1, 2, 3], step=4), scored(4, scores=[4, 5, 6, 7], step=5)])
    assert positions_of(pick(candidates, 2, oldest_step=5)) == [4, 5]
    assert positions_of(pick(candidates, 2, oldest_step=4)) == [0, 1]


def test_remembered_scores_are_within_any_oldest_step() -> None:
    chunk = losses(0, [7, 5], step=4, wanted=[True, False, True, False])
    remembered = candidates_of([chunk], score="loss", remembered=lambda ids: np.array([6, 4], dtype=np.float32))
    assert positions_of(pick(remembered, 4, method="loss", oldest_step=5)) == [1, 3]
    assert positions_of(pick(remembered, 4, method="loss", oldest_step=4)) == [0, 2]


def test_picking_leaves_the_scores_of_the_chunks_alone() -> None:
    chunk = scored(0, scores=[5, 1, 7, 3])
    pick(candidates_of([chunk]), 4)
    assert chunk.scores["mms"].tolist() == [5, 1, 7, 3]


def test_unwanted_positions_get_the_last_loss_of_the_ledger_and_no_version() -> None:
    ledger = make_ledger("stale-selective-backprop")
    ledger.scored(np.arange(23), losses=np.arange(23, dtype=np.float32))
    chunks = [losses(0, [50, 51], step=2, wanted=[False, True, True, False]), losses(4, [52, 53], step=3)]
    candidates = candidates_of(chunks, score="loss", remembered=ledger.losses_of)
    known = ids_at(0, 3).tolist()
    assert candidates.offer.scores["loss"].tolist() == [known[0], 50, 51, known[1], 52, 53]
    assert candidates.version_steps.tolist() == [NOT_STREAMED, 2, 2, NOT_STREAMED, 3, 3]
    assert candidates.num_unwanted == 2
    assert chunks[0].scores["loss"].isnan().tolist() == [True, False, False, True], "the chunk's own stay"


def test_a_chunk_of_which_everything_is_remembered_has_losses_and_no_margins() -> None:
    chunk = ScoredChunk(4, 8, Version(GENERATION, 9), {}, np.zeros(4, dtype=bool))
    candidates = candidates_of([chunk], score="loss", remembered=lambda ids: ids.astype(np.float32))
    assert candidates.offer.scores["loss"].tolist() == ids_at(4, 5, 6, 7).tolist()
    picked = candidates.take(selection(2, 0))
    assert picked.scores.tolist() == ids_at(6, 4).tolist()
    assert picked.margins.isnan().all()


def test_a_remembered_loss_that_is_unknown_counts_as_dropped() -> None:
    chunk = losses(0, [7], wanted=[False, True, False])
    candidates = candidates_of([chunk], score="loss", remembered=lambda ids: np.array([NAN, 2], dtype=np.float32))
    assert positions_of(pick(candidates, 3, method="loss")) == [1, 2]


def test_margins_come_beside_the_score_that_selects() -> None:
    with_margins = replace(losses(0, [5, 1, 7, 3]), scores={"loss": torch.tensor([5.0, 1, 7, 3]), "mms": torch.ones(4)})
    candidates = CandidateSet([with_margins, losses(4, [9, 0, 0, 0])], make_order(), ("loss",))
    picked = pick(candidates, 3, method="loss")
    assert picked.scores.tolist() == [9, 7, 5]
    assert picked.margins.isnan().tolist() == [True, False, False]
    assert set(candidates.offer.scores) == {"loss"}, "a method sees what it asked for"


def test_classes_are_those_of_the_ids() -> None:
    candidates = candidates_of([scored(0), scored(8)], targets_of=lambda ids: torch.from_numpy(ids * 2))
    assert candidates.offer.targets.tolist() == (2 * ids_at(0, 1, 2, 3, 8, 9, 10, 11)).tolist()


def test_factors_are_offered_in_the_order_of_chunks_if_all_chunks_have_them() -> None:
    def factored(start: int) -> ScoredChunk:
        rows = torch.full((4, 2), float(start), dtype=torch.float16)
        return replace(losses(start, [1, 2, 3, 4]), errors=rows, features=rows + 1)

    candidates = candidates_of([factored(4), factored(8)], score="loss")
    assert candidates.offer.errors[:, 0].tolist() == [4] * 4 + [8] * 4
    assert candidates.offer.features[:, 1].tolist() == [5] * 4 + [9] * 4
    assert candidates_of([factored(4), losses(8, [1] * 4)], score="loss").offer.errors is None


def test_a_payload_of_all_gives_the_picked_samples_in_the_order_of_selection() -> None:
    chunks = [
        scored(0, scores=[5, 1, 7, 3], payload=payload(0, [0, 1, 2, 3])),
        scored(8, scores=[4, 9, 0, 6], payload=payload(8, [0, 1, 2, 3])),
    ]
    picked = pick(candidates_of(chunks), 4)
    assert positions_of(picked) == [10, 1, 3, 8]
    assert picked.inputs[:, 0].tolist() == [10, 1, 3, 8]
    assert picked.targets.tolist() == [100, 10, 30, 80]


def test_a_payload_of_the_best_in_any_order_offers_those_and_no_others() -> None:
    chunks = [
        scored(0, scores=[5, 1, 7, 3], payload=payload(0, [3, 1])),
        scored(8, scores=[4, 9, 0, 6], payload=payload(8, [2, 0])),
    ]
    candidates = candidates_of(chunks)
    picked = pick(candidates, 3)
    assert positions_of(picked) == [10, 1, 3]
    assert picked.inputs[:, 2].tolist() == [10, 1, 3]
    rest = pick(candidates, 3)
    assert positions_of(rest) == [8], "candidates without their samples cannot be trained on"
    assert rest.targets.tolist() == [80]


def test_a_payload_of_nothing_gives_nothing() -> None:
    assert len(pick(candidates_of([scored(0, scores=[NAN] * 4, payload=payload(0, []))]), 3)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_reference_and_payload_pick_the_same_samples(seed: int) -> None:
    draw = np.random.default_rng(seed)
    by_reference, by_payload = [], []
    for start in (0, 16, 4):
        scores = draw.permutation(4).astype(float).tolist()
        by_reference.append(scored(start, scores=scores))
        by_payload.append(scored(start, scores=scores, payload=payload(start, draw.permutation(4).tolist())))
    expected, got = pick(candidates_of(by_reference), 7), pick(candidates_of(by_payload), 7)
    assert positions_of(got) == positions_of(expected) == got.inputs[:, 1].tolist()


def test_rows_and_joined_parts_keep_every_field_at_its_sample() -> None:
    chunks = [scored(0, step=2, payload=payload(0, [0, 1, 2, 3])), scored(8, step=3, payload=payload(8, [3, 2, 1, 0]))]
    parts = [candidates_of([chunk]).take(Selection(torch.arange(4), torch.arange(4.0), 0, torch.arange(4.0) / 4))
             for chunk in chunks]  # fmt: skip
    joined = Picked.joined(parts).rows(np.array([6, 1]))
    assert positions_of(joined) == [10, 1] == joined.inputs[:, 0].tolist() == joined.scores.tolist()
    assert joined.targets.tolist() == [100, 10]
    assert joined.version_steps.tolist() == [3, 2]
    assert joined.weights.tolist() == [2, 1]
    assert joined.probability.tolist() == [0.5, 0.25]
    assert positions_of(Picked.joined(parts).rows(np.arange(8) % 2 == 1)) == [1, 3, 9, 11]


def test_parts_with_and_without_their_samples_join_by_reference() -> None:
    shipped = candidates_of([scored(0, payload=payload(0, [0, 1, 2, 3]))]).take(selection(0, 1))
    by_reference = candidates_of([scored(4)]).take(selection(2))
    for parts in ([shipped, by_reference], [by_reference, shipped]):
        joined = Picked.joined(parts)
        assert len(joined) == 3
        assert (joined.inputs, joined.targets) == (None, None)
