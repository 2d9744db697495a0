"""What training tells the ledger of the samples that it trained."""

import numpy as np
import pytest
import torch

from common.shard import Shard
from trainer.batch import Batch, Origin
from trainer.feedback import NUM_PENDING, Feedback
from trainer.ledger import Ledger
from trainer.prediction import LossHistories

NAN = float("nan")


def make_ledger() -> Ledger:
    return Ledger(8, ("loss", "age", "seen", "selected"))


def batch(*ids: int, origin: Origin = "stale") -> Batch:
    ones = torch.ones(len(ids))
    return Batch(ones, ones.long(), ones, np.array(ids, dtype=np.int64), 0, origin)


def values(ledger: Ledger) -> list[float]:
    return [round(value, 4) for value in np.nan_to_num(ledger.loss, nan=-1).tolist()]


@pytest.mark.parametrize("origin", ["fresh", "stale", "reused"])
def test_losses_of_selected_samples_reach_the_ledger_and_count(origin: Origin) -> None:
    ledger = make_ledger()
    feedback = Feedback(ledger, None, needs_losses=True)
    feedback.add(batch(5, 2, origin=origin), torch.tensor([0.5, 0.25], requires_grad=True))
    feedback.finish()
    assert values(ledger) == [-1, -1, 0.25, -1, -1, 0.5, -1, -1]
    assert ledger.selected.tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    assert (ledger.age == 255).all(), "only a scoring forward sets the age"


@pytest.mark.parametrize("origin", ["plain", "fallback"])
def test_losses_of_plain_samples_are_known_but_nobody_selected_them(origin: Origin) -> None:
    ledger = make_ledger()
    feedback = Feedback(ledger, None, needs_losses=True)
    feedback.add(batch(5, 2, origin=origin), torch.tensor([0.5, 0.25]))
    feedback.finish()
    assert values(ledger) == [-1, -1, 0.25, -1, -1, 0.5, -1, -1]
    assert ledger.selected.sum() == 0


def test_losses_in_half_precision_are_taken_as_well() -> None:
    ledger = make_ledger()
    Feedback(ledger, None, needs_losses=True).add(batch(1), torch.tensor([0.5], dtype=torch.bfloat16))
    assert values(ledger)[1] == 0.5


def test_later_losses_replace_earlier_ones_and_nan_replaces_none() -> None:
    ledger = make_ledger()
    feedback = Feedback(ledger, None, needs_losses=True)
    feedback.add(batch(1, 2), torch.tensor([0.5, 0.25]))
    feedback.add(batch(2, 1), torch.tensor([0.75, NAN]))
    assert values(ledger)[1:3] == [0.5, 0.75]


@pytest.mark.parametrize("losses", [None, torch.tensor(0.5), torch.ones(3), torch.ones(2, 1)])
def test_a_method_that_needs_losses_says_what_it_got_instead(losses: torch.Tensor | None) -> None:
    ledger = make_ledger()
    with pytest.raises(ValueError, match=r"the loss of each of the 2 samples in step\(losses\), got (none|shape)"):
        Feedback(ledger, None, needs_losses=True).add(batch(1, 2), losses)
    assert ledger.selected.sum() == 0


@pytest.mark.parametrize("losses", [None, torch.ones(2), torch.tensor(1.0)])
def test_where_nobody_reads_losses_samples_are_counted_without(losses: torch.Tensor | None) -> None:
    ledger = make_ledger()
    feedback = Feedback(ledger, None, needs_losses=False)
    feedback.add(batch(1, 2), losses)
    feedback.add(batch(1, 3, origin="plain"), losses)
    feedback.finish()
    assert ledger.selected.tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert values(ledger) == [-1] * 8


def test_batches_without_losses_are_counted_some_at_a_time_and_all_once_finished() -> None:
    ledger = make_ledger()
    feedback = Feedback(ledger, None, needs_losses=False)
    for _ in range(2 * NUM_PENDING + 1):
        feedback.add(batch(1, 2), None)
    assert ledger.selected[1] == 2 * NUM_PENDING
    feedback.finish()
    assert ledger.selected.tolist() == [0, *[2 * NUM_PENDING + 1] * 2, 0, 0, 0, 0, 0]
    feedback.finish()
    assert ledger.selected[1] == 2 * NUM_PENDING + 1


@pytest.mark.gpu
def test_losses_on_a_gpu_arrive_in_order_and_all_of_them_once_finished() -> None:
    ledger = make_ledger()
    feedback = Feedback(ledger, None, needs_losses=True)
    for step in range(50):
        feedback.add(batch(1, 2), torch.full((2,), float(step), device="cuda"))
    feedback.finish()
    assert values(ledger)[1:3] == [49, 49]
    assert ledger.selected.tolist() == [0, 50, 50, 0, 0, 0, 0, 0]


def test_histories_get_every_loss_also_where_no_ledger_is_kept() -> None:
    learned: list[tuple[list[int], list[float], np.ndarray]] = []
    histories = LossHistories(8, lambda ids, losses, before: learned.append((ids.tolist(), losses.tolist(), before)))
    feedback = Feedback(None, histories, needs_losses=False)
    feedback.add(batch(5, 2), torch.tensor([0.5, 0.25]))
    feedback.add(batch(5, 1, origin="plain"), torch.tensor([0.75, NAN]))
    assert [entry[:2] for entry in learned] == [([5, 2], [0.5, 0.25]), ([5], [0.75])]
    assert np.isnan(learned[0][2]).all()
    assert learned[1][2][0, -1] == 0.5
    assert histories.of(np.array([5]))[0, -2:].tolist() == [0.5, 0.75]
    with pytest.raises(ValueError, match="got none"):
        feedback.add(batch(1), None)


def test_a_sample_that_comes_twice_in_a_batch_adds_both_losses_to_its_history() -> None:
    learned: list[np.ndarray] = []
    histories = LossHistories(8, lambda ids, losses, before: learned.append(before))
    histories.append(np.array([5, 2, 5, 5]), np.array([1, 2, 3, 4], dtype=np.float32))
    assert histories.of(np.array([5, 2]))[:, -3:].tolist()[0] == [1, 3, 4]
    assert histories.of(np.array([2]))[0, -1] == 2
    assert np.nan_to_num(learned[0], nan=0)[:, -2:].tolist() == [[0, 0], [0, 0], [0, 1], [1, 3]]


@pytest.mark.parametrize(("origin", "selected"), [("plain", [0, 0, 0, 0]), ("stale", [0, 0, 1, 1])])
def test_a_rank_notes_the_samples_that_it_owns_by_their_local_ids(origin: Origin, selected: list[int]) -> None:
    learned: list[tuple[list[int], list[float]]] = []
    histories = LossHistories(4, lambda ids, losses, before: learned.append((ids.tolist(), losses.tolist())))
    ledger = Ledger(4, ("loss", "selected"))
    feedback = Feedback(ledger, histories, needs_losses=True, shard=Shard(1, 3))  # 1, 4, 7 and 10 of 12
    feedback.add(batch(10, 3, 7, 2, origin=origin), torch.tensor([0.5, 0.25, 0.75, 1.0]))
    feedback.add(batch(0, 2, origin="plain"), torch.tensor([9.0, 9.0]))  # none of its own
    assert values(ledger) == [-1, -1, 0.75, 0.5]
    assert ledger.selected.tolist() == selected
    assert learned == [([3, 2], [0.5, 0.75])]
