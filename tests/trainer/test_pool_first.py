"""The pool for steps that take chunks one by one, and for chunks with remembered scores."""

import threading

import numpy as np
import pytest

from common.protocol import Version
from tests.trainer.chunks import GENERATION, ask_in_vain, fill, make_pool, scored
from tests.trainer.test_pool import balanced
from trainer.chunks import ScoredChunk

WITHIN_S = 10.0


# -- one chunk at a time ----------------------------------------------------------------------------------------------


def test_the_first_chunk_is_taken_whatever_arrived_first() -> None:
    pool = make_pool(max_staleness=4)
    pool.announce(Version(GENERATION, 0))
    held = [pool.issue(1, credits=8) for _ in range(3)]
    for one in (held[2], held[0]):
        pool.put(1, one.lease, scored(one.start))
    assert pool.take_first(0).start == 0
    assert pool.take_first(0).start == 8
    assert pool.take_first(0) is None
    assert pool.account()["consumed"] == 2
    assert balanced(pool.account())


def test_staleness_is_judged_for_single_chunks_too_unless_age_does_not_matter() -> None:
    for step, taken, dropped in ((4, 0, 0), (5, None, 2), (None, 0, 0)):
        pool = make_pool(max_staleness=4)
        fill(pool, 2, step=0)
        chunk = pool.take_first(step)
        assert (chunk.start if chunk else None) == taken
        assert pool.account()["dropped"] == dropped
        assert balanced(pool.account())


def test_after_a_chunk_leases_are_for_the_next_step_until_this_one_needs_more() -> None:
    pool = make_pool(max_staleness=0, chunks_per_step=1)
    rooms = []
    pool.on_room = lambda: rooms.append(pool.next_step)
    fill(pool, 1)
    ask_in_vain(pool)
    assert pool.take_first(0) is not None
    assert rooms == [1]
    assert pool.issue(1, credits=8) is None, "weights of step 0 are too old for step 1"
    pool.advance(0)
    assert rooms == [1, 0]
    held = pool.issue(1, credits=8)
    assert held is not None
    assert pool.take_first(0) is None
    assert pool.next_step == 0
    pool.expire([held.lease])
    pool.advance(1)
    fill(pool, 1, step=1)
    assert pool.take_first() is not None
    assert pool.next_step == 1, "plain batches take chunks whenever they like"


# -- remembered scores ------------------------------------------------------------------------------------------------


def every_other_chunk(start: int, stop: int) -> np.ndarray:
    return np.full(stop - start, (start // 4) % 2 == 1)


def test_a_chunk_whose_scores_are_all_remembered_goes_to_no_scorer_and_is_consumed_in_its_turn() -> None:
    pool = make_pool(plan_visit=every_other_chunk, max_staleness=4)
    starts = fill(pool, 3)
    assert starts == [4, 12, 20]
    assert pool.held_by(1) == []
    taken = [pool.take_first(0) for _ in range(6)]
    assert [chunk.start for chunk in taken] == [0, 4, 8, 12, 16, 20]
    for chunk in taken[::2]:
        assert chunk.scores == {}
        assert not chunk.wanted.any()
        assert chunk.version == Version(GENERATION, 0)
    assert pool.account() == {
        "leased": 6, "consumed": 6, "expired": 0, "dropped": 0, "skipped": 0, "outstanding": 0
    }  # fmt: skip


def test_remembered_chunks_are_bounded_like_others_and_wake_whoever_waits() -> None:
    pool = make_pool(plan_visit=lambda start, stop: np.zeros(stop - start, dtype=bool), chunks_per_step=2)
    pool.announce(Version(GENERATION, 0))
    seen = pool.changes
    assert pool.issue(1, credits=3) is None
    assert pool.num_ready == 2 * 2 + 3
    assert pool.changes > seen
    assert pool.account()["outstanding"] == 7
    assert [chunk.start for chunk in pool.take(0)] == [0, 4]
    assert balanced(pool.account())
    pool.finish()
    assert pool.account()["skipped"] == 5
    assert balanced(pool.account())


# -- chunks that came too late ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("take", ["take", "take_first"])
def test_a_chunk_dropped_as_too_stale_is_told_outside_of_the_lock_and_before_there_is_room(take: str) -> None:
    pool = make_pool(max_staleness=4, chunks_per_step=1)
    told = []

    def on_drop(chunk: ScoredChunk) -> None:
        other = threading.Thread(target=pool.account)  # would wait for the lock
        other.start()
        other.join(WITHIN_S)
        assert not other.is_alive(), "the pool is locked"
        told.append(chunk.start)

    pool.on_drop = on_drop
    pool.on_room = lambda: told.append(-1)
    fill(pool, 2, step=0)
    fill(pool, 1, step=3)
    ask_in_vain(pool)
    told.clear()
    taken = getattr(pool, take)(5)
    assert told == [0, 4, -1]
    assert (taken if take == "take_first" else taken[0]).start == 8
    assert getattr(pool, take)(5) in (None, [])
    assert told == [0, 4, -1], "once"


def test_what_is_skipped_at_the_end_is_not_told() -> None:
    pool = make_pool()
    pool.on_drop = lambda chunk: pytest.fail("a skipped chunk is not too stale")
    fill(pool, 2)
    pool.finish()
    assert pool.take(10**6) == []
    assert pool.take_first(10**6) is None
