"""From scored chunks to the samples of a step: pools, streams, draws from the ledger, and what the ledger is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config import TrainerOptions
from common.data.sources import open_source
from common.errors import ConfigError
from common.protocol import Version
from tests.trainer.chunks import GENERATION, scored
from tests.trainer.selectors import NUM, ids_at, losses, make_ledger, make_selector, positions_of
from tests.trainer.test_candidates import payload
from trainer.candidates import NOT_STREAMED
from trainer.chunks import ScoredChunk
from trainer.stream import SelectedBatches

NAN = float("nan")


def known(row: np.ndarray | None) -> dict[int, float]:
    assert row is not None
    return {int(index): float(row[index]) for index in np.flatnonzero(np.isfinite(row))}


# -- pools ------------------------------------------------------------------------------------------------------------


def test_a_pool_picks_the_hardest_of_what_was_offered_last() -> None:
    selector = make_selector("mms")
    assert selector.offer([scored(0, step=1), scored(4, step=1)], 3) == 8
    assert positions_of(selector.pick(3)) == [0, 1, 2]
    selector.offer([scored(8, step=2)], 4)
    assert positions_of(selector.pick(4)) == [8, 9, 10]


def test_a_pool_of_nothing_finite_picks_an_empty_batch_and_is_forgotten() -> None:
    selector = make_selector("mms")
    selector.offer([scored(0, scores=[NAN] * 4)], 0)
    assert len(selector.pick(0)) == 0
    assert selector.pick_again(0) is None


def test_offering_nothing_changes_nothing() -> None:
    selector = make_selector("mms")
    selector.offer([scored(0)], 0)
    assert selector.offer([], 1) == 0
    assert positions_of(selector.pick(1)) == [0, 1, 2]
    assert selector.knows_any
    assert not make_selector("rank").knows_any


def test_picking_again_takes_the_next_best_until_too_few_are_left() -> None:
    selector = make_selector("mms", batch_size=2)
    assert selector.pick_again(0) is None, "nothing was offered"
    selector.offer([scored(0, scores=[5, 1, 7, 3]), scored(4, scores=[2, 9, 4, NAN])], 0)
    assert positions_of(selector.pick(0)) == [1, 4]
    assert positions_of(selector.pick_again(0)) == [3, 6]
    assert positions_of(selector.pick_again(0)) == [0, 2]
    assert selector.pick_again(0) is None, "one is left"


def test_picking_again_leaves_out_scores_of_weights_that_are_too_old_now() -> None:
    selector = make_selector("mms", batch_size=2)
    selector.offer([scored(0, scores=[0, 1, 2, 3], step=4), scored(4, scores=[4, 5, 6, 7], step=5)], 5)
    assert positions_of(selector.pick(5)) == [0, 1]
    assert positions_of(selector.pick_again(5)) == [4, 5]
    assert positions_of(selector.pick_again(4)) == [2, 3]


def test_only_pools_can_be_picked_from_again() -> None:
    for method in ("selective-backprop", "rank"):
        selector = make_selector(method)
        selector.offer([losses(0, [1, 2, 3, 4])], 0)
        selector.pick(0)
        assert selector.pick_again(0) is None


def test_a_method_that_looks_at_classes_is_given_them() -> None:
    selector = make_selector("loss-balanced", batch_size=3)
    chunk = losses(0, [1, 2, 3, 4, 5, 6])
    selector.offer([chunk], 0)
    assert sorted((selector.pick(0).ids % 3).tolist()) == [0, 1, 2]


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_queues_what_its_coins_choose_until_that_is_a_batch() -> None:
    selector = make_selector("selective-backprop")
    assert selector.pick(0) is None
    selector.offer([losses(0, [5, NAN, 7, NAN])], 0)
    assert selector.pick(0) is None
    selector.offer([losses(4, [1, 2, 3, 4])], 0)
    assert positions_of(selector.pick(0)) == [0, 2, 4], "the first epoch trains on everything, in its order"
    assert positions_of(selector.pick(0)) == [5, 6, 7]


def test_a_stream_chooses_by_the_percentile_among_the_losses_before_and_its_own() -> None:
    selector = make_selector("selective-backprop", batch_size=1, parameters={"beta": 1.0, "history": 5000})
    rows = np.random.default_rng(0).permutation(2300).astype(float).reshape(100, NUM)
    for step, row in enumerate(rows[:80]):
        selector.offer([losses(NUM * (1 + step), row.tolist())], step)
    chosen = selector.queue.take_all(1000, 0)
    assert abs(len(chosen) / (80 * NUM) - 0.5) < 0.03
    assert chosen.scores.double().mean() > 1.25 * rows[:80].mean()


def test_a_quota_of_a_stream_holds_in_the_batches_of_its_queue() -> None:
    selector = make_selector("selective-backprop", batch_size=4, class_quota=0.5)
    selector.offer([losses(0, list(range(1, 13)))], 0)
    classes = ids_at(*range(12)) % 3
    picked = selector.pick(0)
    assert np.bincount(picked.ids % 3).max() <= 2
    assert picked.ids[0] == ids_at(0)[0]
    assert len(picked) == 4
    assert np.bincount(classes).max() > 2


def test_remembered_losses_are_offered_and_wanted_ones_are_reported() -> None:
    ledger = make_ledger("stale-selective-backprop")
    ledger.scored(ids_at(1, 3), losses=np.array([7, 8], dtype=np.float32))
    selector = make_selector("stale-selective-backprop", batch_size=4, ledger=ledger)
    selector.offer([losses(0, [1, 2], step=5, wanted=[True, False, True, False])], 6)
    picked = selector.pick(6)
    assert picked.scores.tolist() == [1, 7, 2, 8]
    assert picked.version_steps.tolist() == [5, NOT_STREAMED, 5, NOT_STREAMED]
    assert known(ledger.loss) == dict(zip(ids_at(0, 1, 2, 3).tolist(), [1, 7, 2, 8], strict=True))
    assert (selector.num_offered, selector.num_remembered) == (4, 2)


# -- draws from the ledger --------------------------------------------------------------------------------------------


def test_a_planned_method_draws_ids_of_all_samples_with_a_visit_of_its_own_each_step() -> None:
    ledger = make_ledger("rank")
    ledger.scored(np.arange(NUM), losses=np.arange(NUM, dtype=np.float32))
    selector = make_selector("rank", ledger=ledger, parameters={"pressure_start": 1e6, "pressure_end": 1.0})
    picked = [selector.pick(step) for step in range(60)]
    for step, one in enumerate(picked):
        assert len(set(one.ids.tolist())) == 3, "without replacement in a batch"
        assert one.visits.tolist() == [step] * 3
        assert one.version_steps.tolist() == [NOT_STREAMED] * 3
        assert one.scores.tolist() == one.ids.tolist(), "the last known losses"
        assert one.margins.isnan().all()
        assert (one.probability < 1).all()
    assert np.concatenate([one.ids for one in picked]).mean() > 0.75 * NUM, "the highest losses are likelier"


def test_classes_of_all_samples_are_looked_up_once() -> None:
    calls = []

    def targets_of(ids: np.ndarray) -> torch.Tensor:
        calls.append(len(ids))
        return torch.from_numpy(ids % 3)

    ledger = make_ledger("rank")
    selector = make_selector("rank", ledger=ledger, class_quota=0.4, targets_of=targets_of, batch_size=5)
    for step in range(20):
        picked = selector.pick(step)
        assert np.bincount(picked.ids % 3).max() <= 2
    assert calls == [NUM]


# -- what the ledger is told ------------------------------------------------------------------------------------------


def test_the_ledger_is_told_of_each_visit_and_score() -> None:
    ledger = make_ledger("mms")
    selector = make_selector("mms", ledger=ledger)
    selector.offer([scored(0, scores=[5, 1, NAN, 3]), scored(NUM, scores=[9, 8, 7, 6])], 0)
    assert known(ledger.score) == dict(
        zip(ids_at(0, 1, 3, NUM, NUM + 1, NUM + 2, NUM + 3).tolist(), [5, 1, 3, 9, 8, 7, 6], strict=True)
    )
    expected = np.bincount(ids_at(0, 1, 2, 3, NUM, NUM + 1, NUM + 2, NUM + 3), minlength=NUM)
    assert ledger.seen.tolist() == expected.tolist()
    assert ledger.selected.sum() == 0, "that is for training to tell"


def test_a_dropped_candidate_makes_loss_and_score_unknown() -> None:
    ledger = make_ledger("rank")
    ledger.scored(np.arange(NUM), losses=np.ones(NUM), scores=np.ones(NUM))
    make_selector("rank", ledger=ledger).offer([losses(0, [5, NAN, 7, 8])], 0)
    assert set(range(NUM)) - set(known(ledger.loss)) == set(ids_at(1).tolist())
    assert set(range(NUM)) - set(known(ledger.score)) == set(ids_at(1).tolist())


def test_samples_whose_payload_was_not_shipped_have_a_score_all_the_same() -> None:
    ledger = make_ledger("mms")
    selector = make_selector("mms", ledger=ledger)
    selector.offer([scored(0, scores=[5, 1, 7, 3], payload=payload(0, [3, 1]))], 0)
    assert known(ledger.score) == dict(zip(ids_at(0, 1, 2, 3).tolist(), [5, 1, 7, 3], strict=True))
    assert positions_of(selector.pick(0)) == [1, 3]


def test_the_ledger_holds_the_methods_own_score_and_its_loss() -> None:
    ledger = make_ledger("rank")
    selector = make_selector("cdf-gradnorm", ledger=ledger)
    both = {"loss": torch.arange(4.0), "gradient-norm": torch.arange(4.0) / 10, "mms": torch.ones(4)}
    selector.offer([replace(losses(0, [0, 0, 0, 0]), scores=both)], 0)
    assert known(ledger.loss) == dict(zip(ids_at(0, 1, 2, 3).tolist(), [0, 1, 2, 3], strict=True))
    assert list(known(ledger.score).values()) == pytest.approx([known(ledger.loss)[i] / 10 for i in known(ledger.loss)])


def test_a_chunk_that_came_too_late_is_remembered_and_not_offered() -> None:
    ledger = make_ledger("stale-selective-backprop")
    ledger.scored(ids_at(0, 1, 2, 3), losses=np.full(4, 9))
    selector = make_selector("stale-selective-backprop", ledger=ledger)
    selector.note_late(losses(0, [1, NAN], wanted=[True, False, True, False]))
    selector.note_late(ScoredChunk(4, 8, Version(GENERATION, 0), {}, np.zeros(4, dtype=bool)))
    assert known(ledger.loss) == dict(zip(ids_at(0, 1, 3).tolist(), [1, 9, 9], strict=True))
    assert ledger.seen.sum() == selector.num_offered == len(selector.queue) == 0
    make_selector("mms").note_late(scored(0))  # nothing is remembered there


def test_a_visit_after_a_late_chunk_is_planned_on_its_losses() -> None:
    """Else an id would count as just scored, with a loss that is older than any age allows."""
    ledger = make_ledger("stale-selective-backprop")
    selector = make_selector("stale-selective-backprop", ledger=ledger)
    ids = ids_at(0, 1, 2, 3)
    assert ledger.plan_visit(ids, 3).all()
    assert ledger.plan_visit(ids, 3).all(), "as long as no result came every visit needs a forward pass"
    selector.note_late(losses(0, [1, 2, NAN, 4]))
    needed = ledger.plan_visit(ids, 250)
    assert needed.tolist() == [False, False, True, False]
    assert ledger.losses_of(ids[[0, 1, 3]]).tolist() == [1, 2, 4]


def test_without_a_ledger_nothing_is_remembered_and_all_goes_on() -> None:
    selector = make_selector("mms", ledger=None)
    selector.offer([scored(0)], 0)
    assert len(selector.pick(0)) == 3
    assert selector.state_dict()["ledger"] == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "rank", "batch_size": 3000}, "there are 1437"),
        ({"method": "infobatch", "selection": {"class_quota": 0.5}}, "would undo the weights"),
        ({"method": "mms", "batch_size": 64, "selection": {"class_quota": 0.05}}, "cannot fill a batch of 64"),
    ],
)
def test_options_that_no_batch_can_meet_are_refused_before_training(changes: dict, says: str) -> None:
    options = TrainerOptions(data="digits", mode="fresh", **changes)
    source = open_source(options)
    with pytest.raises(ConfigError, match=says):
        SelectedBatches(options, source, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
