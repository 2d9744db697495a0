"""The queue of a stream: first in, first out, never too stale, no class too often, and the same after a restart."""

import io

import numpy as np
import pytest
import torch

from tests.trainer.selectors import candidates_of, losses
from tests.trainer.test_candidates import payload, selection
from trainer.candidates import NOT_STREAMED, Picked
from trainer.chunks import ScoredChunk
from trainer.queue import SampleQueue


def some(*ids: int, step: int = 0, value: float = 1.0) -> Picked:
    num = len(ids)
    row = torch.arange(num, dtype=torch.float32) + value
    steps = np.full(num, step, dtype=np.int64)
    return Picked(
        np.array(ids, dtype=np.int64), np.array(ids, dtype=np.int64) + 100, steps, row, row / 10, -row, row * 2
    )


def reloaded(queue: SampleQueue, *arguments: object) -> SampleQueue:
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    again = SampleQueue(*arguments)  # type: ignore[arg-type]
    again.load_state_dict(torch.load(file, weights_only=True))
    return again


def assert_equal(one: Picked, other: Picked) -> None:
    for name in ("ids", "visits", "version_steps", "weights", "probability", "scores", "margins"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


def test_samples_leave_in_the_order_in_which_they_came() -> None:
    queue = SampleQueue(4)
    for part in (some(5, 3), some(9), some(), some(1, 2, 8)):
        queue.add(part)
    assert queue.take(4, 0).ids.tolist() == [5, 3, 9, 1]
    assert len(queue) == 2
    assert queue.take(4, 0) is None, "two do not make a batch of four"
    queue.add(some(7, 6))
    assert queue.take(4, 0).ids.tolist() == [2, 8, 7, 6]
    assert len(queue) == 0
    assert queue.take(1, 0) is None


def test_every_field_travels_with_its_sample() -> None:
    queue = SampleQueue(4)
    queue.add(some(5, 3, step=2))
    queue.add(some(9, step=3, value=7))
    taken = queue.take(3, 4)
    assert taken.visits.tolist() == [105, 103, 109]
    assert taken.version_steps.tolist() == [2, 2, 3]
    assert taken.weights.tolist() == [1, 2, 7]
    assert taken.scores.tolist() == [-1, -2, -7]
    assert taken.margins.tolist() == [2, 4, 14]


def test_staleness_is_judged_at_the_step_that_trains() -> None:
    queue = SampleQueue(4)
    queue.add(some(1, 2, step=3))
    queue.add(some(3, 4, 5, step=4))
    assert queue.take(9, 7) is None
    assert len(queue) == 5, "exactly max_staleness is allowed"
    assert queue.take(3, 8).ids.tolist() == [3, 4, 5], "and one more is not"
    assert queue.num_expired == 2
    queue.add(some(6, step=8))
    assert queue.take(1, 13) is None
    assert (len(queue), queue.num_expired) == (0, 3)


def test_staleness_of_zero_keeps_nothing_for_another_step() -> None:
    queue = SampleQueue(0)
    queue.add(some(1, 2, 3, step=5))
    assert queue.take(2, 5).ids.tolist() == [1, 2]
    assert queue.take(1, 6) is None


def test_remembered_scores_have_an_age_of_their_own_and_never_expire_here() -> None:
    queue = SampleQueue(2)
    queue.add(some(1, step=0))
    queue.add(some(2, step=NOT_STREAMED))
    assert queue.take(1, 1000).ids.tolist() == [2]
    assert queue.num_expired == 1


def test_take_all_gives_what_may_still_be_trained() -> None:
    queue = SampleQueue(4)
    assert queue.take_all(9, 0) is None
    queue.add(some(1, 2, step=0))
    queue.add(some(3, step=6))
    assert queue.take_all(9, 7).ids.tolist() == [3]
    assert queue.take_all(9, 7) is None


def test_a_quota_holds_when_there_are_too_few_for_a_batch() -> None:
    queue = SampleQueue(4, 0.5)
    queue.add(some(0, 1, 2, 3, 4), np.array([7, 7, 7, 5, 7]))
    taken = queue.take_all(4, 0)
    assert (taken.ids.tolist(), taken.num_missing) == ([0, 1, 3], 1)
    assert queue.take_all(4, 0).ids.tolist() == [2, 4], "what was over waits for the next batch"
    assert queue.take_all(4, 0) is None


def test_a_quota_takes_the_earliest_of_each_class_and_leaves_the_rest_in_turn() -> None:
    queue = SampleQueue(4, 0.5)
    queue.add(some(0, 1, 2, 3, 4), np.array([7, 7, 7, 5, 7]))
    assert queue.take(4, 0) is None, "three of a class in four are too many"
    queue.add(some(5, 6), np.array([6, 7]))
    assert queue.take(4, 0).ids.tolist() == [0, 1, 3, 5]
    assert len(queue) == 3
    queue.add(some(8, 9), np.array([1, 1]))
    assert queue.take(4, 0).ids.tolist() == [2, 4, 8, 9]
    assert queue.take(1, 0).ids.tolist() == [6]


def test_a_quota_holds_when_samples_expire_and_after_a_restart() -> None:
    queue = SampleQueue(4, 0.5)
    queue.add(some(0, 1, step=0), np.array([7, 7]))
    queue.add(some(2, 3, 4, step=5), np.array([5, 5, 5]))
    queue.add(some(5, step=5), np.array([6]))
    again = reloaded(queue, 4, 0.5)
    for one in (queue, again):
        assert one.take(4, 5) is None, "0 and 1 have expired; of 5 only two may be in"
        assert one.take(3, 5).ids.tolist() == [2, 3, 5]


def test_a_restart_goes_on_with_the_same_queue() -> None:
    queue = SampleQueue(4)
    queue.add(some(5, 3, step=2))
    queue.add(some(9, step=3, value=7))
    again = reloaded(queue, 4)
    assert_equal(again.take(3, 4), queue.take(3, 4))


def test_the_state_is_a_copy_and_replaces_what_waited() -> None:
    queue = SampleQueue(4)
    queue.add(some(5, 3))
    state = queue.state_dict()
    queue.take(2, 0)
    queue.load_state_dict(SampleQueue(4).state_dict())
    assert len(queue) == 0
    queue.add(some(1))
    queue.load_state_dict(state)
    assert queue.take(2, 0).ids.tolist() == [5, 3]
    queue.load_state_dict(state)
    queue.load_state_dict(SampleQueue(4).state_dict())
    assert len(queue) == 0


def shipped(start: int) -> Picked:
    chunk = losses(start, [1, 2, 3, 4])
    with_payload = ScoredChunk(
        chunk.start, chunk.stop, chunk.version, chunk.scores, payload=payload(start, [0, 1, 2, 3])
    )
    return candidates_of([with_payload], score="loss").take(selection(0, 1, 3))


@pytest.mark.parametrize("rereads", [True, False])
def test_samples_of_payload_are_saved_by_reference_or_whole_where_they_cannot_be_read(rereads: bool) -> None:
    queue = SampleQueue(4, rereads=rereads)
    queue.add(shipped(0))
    assert queue.take(1, 0).inputs[:, 0].tolist() == [0]
    again = reloaded(queue, 4)
    again.add(shipped(8))
    queue.add(shipped(8))
    expected, got = queue.take(4, 0), again.take(4, 0)
    assert_equal(got, expected)
    assert expected.inputs[:, 0].tolist() == [1, 3, 8, 9]
    if rereads:
        assert got.inputs is None, "all of a batch or nothing"
    else:
        assert got.inputs.equal(expected.inputs)
