"""The pool between I/O thread and feeder: what a step takes, staleness at use, the end, and threads."""

import threading

import pytest

from common.protocol import Version
from tests.trainer.chunks import GENERATION, ask_in_vain, fill, make_pool, scored

WITHIN_S = 10.0


def balanced(account: dict[str, int]) -> bool:
    account = dict(account)
    return account.pop("leased") == sum(account.values())


def test_nothing_is_leased_before_weights_are_announced() -> None:
    pool = make_pool()
    assert pool.issue(1, credits=8) is None
    pool.announce(Version(GENERATION, 0))
    assert pool.issue(1, credits=8) is not None


def test_a_number_of_candidates_takes_exactly_that_many_chunks_in_the_order_of_positions() -> None:
    pool = make_pool(chunks_per_step=2, exact=True)
    fill(pool, 1)
    assert pool.take(0) == []
    fill(pool, 4)
    assert [chunk.start for chunk in pool.take(0)] == [0, 4]
    assert [chunk.start for chunk in pool.take(1)] == [8, 12]
    assert pool.take(2) == []
    assert pool.account()["consumed"] == 4


def test_auto_takes_all_that_are_ready_between_b_and_its_bound() -> None:
    pool = make_pool(chunks_per_step=5, exact=False, chunk_size=4, min_candidates=6)
    fill(pool, 1)
    assert pool.take(0) == [], "4 candidates do not make a step of 6"
    fill(pool, 1)
    assert len(pool.take(0)) == 2
    fill(pool, 8)
    assert len(pool.take(1)) == 5
    assert len(pool.take(2)) == 3


def test_chunks_that_arrive_out_of_order_are_taken_in_order() -> None:
    pool = make_pool(chunks_per_step=2)
    pool.announce(Version(GENERATION, 0))
    held = [pool.issue(1, credits=8) for _ in range(3)]
    for one in reversed(held):
        pool.put(1, one.lease, scored(one.start))
    assert [chunk.start for chunk in pool.take(0)] == [0, 4]


def test_staleness_is_judged_at_the_step_that_uses_a_chunk() -> None:
    pool = make_pool(max_staleness=4, chunks_per_step=1)
    fill(pool, 2, step=3)
    assert [chunk.start for chunk in pool.take(7)] == [0], "exactly max_staleness is allowed"
    assert pool.take(8) == [], "and one more is not"
    assert pool.account()["dropped"] == 1
    assert balanced(pool.account())


def test_dropped_and_taken_chunks_make_room_for_leases() -> None:
    pool = make_pool(max_staleness=4, chunks_per_step=1)
    called = []
    pool.on_room = lambda: called.append(True)
    fill(pool, 1)
    ask_in_vain(pool)
    assert pool.take(9) == []
    assert len(called) == 1
    fill(pool, 1, step=9)
    ask_in_vain(pool)
    assert pool.take(9)
    assert len(called) == 2
    assert pool.take(10) == []
    assert len(called) == 2, "nothing changed"


def test_nobody_is_told_of_room_while_scorers_have_all_the_leases_they_may() -> None:
    pool = make_pool(chunks_per_step=1)
    called = []
    pool.on_room = lambda: called.append(True)
    fill(pool, 2)
    assert pool.take(0)
    pool.advance(3)
    assert called == [], "it would cost a step two switches of threads for nothing"
    ask_in_vain(pool)
    assert pool.take(3)
    assert called == [True]


def test_a_result_is_taken_once_and_only_from_the_session_of_its_lease() -> None:
    pool = make_pool()
    pool.announce(Version(GENERATION, 0))
    held = pool.issue(1, credits=8)
    assert not pool.put(2, held.lease, scored(held.start))
    assert pool.put(1, held.lease, scored(held.start))
    assert not pool.put(1, held.lease, scored(held.start))
    assert pool.refused() == {"no such lease": 2}
    assert (pool.num_arrived, pool.num_ready, pool.candidates_arrived) == (1, 1, 4)


def test_only_the_current_lease_of_a_session_is_known() -> None:
    pool = make_pool()
    pool.announce(Version(GENERATION, 0))
    held = pool.issue(1, credits=8)
    assert pool.lease(1, held.lease) == held
    assert pool.lease(2, held.lease) is None
    assert pool.held_by(1) == [held.lease]
    assert pool.oldest_issues() == {1: held.issued_at}
    pool.expire([held.lease])
    assert pool.lease(1, held.lease) is None
    assert pool.oldest_issues() == {}


def test_finishing_skips_what_is_out_or_ready_and_accepts_nothing_more() -> None:
    pool = make_pool()
    fill(pool, 2)
    mine, others = pool.issue(1, credits=8), pool.issue(2, credits=8)
    assert pool.finish() == {1: [mine.lease], 2: [others.lease]}
    assert not pool.put(1, mine.lease, scored(mine.start))
    assert pool.issue(1, credits=8) is None
    assert pool.take(0) == []
    assert pool.account() == {
        "leased": 4, "consumed": 0, "expired": 0, "dropped": 0, "skipped": 4, "outstanding": 0
    }  # fmt: skip
    assert pool.finish() == {}
    assert pool.account()["skipped"] == 4


def test_the_account_counts_what_is_out_or_ready_as_outstanding() -> None:
    pool = make_pool()
    fill(pool, 3)
    pool.issue(1, credits=8)
    pool.take(0)
    assert pool.account()["outstanding"] == 2
    assert balanced(pool.account())


@pytest.mark.parametrize("event", ["put", "wake", "finish"])
def test_waiting_ends_when_something_happens(event: str) -> None:
    pool = make_pool()
    pool.announce(Version(GENERATION, 0))
    held = pool.issue(1, credits=8)
    waits, ended = threading.Event(), threading.Event()

    def feed() -> None:
        with pool._changed:  # so that the event cannot come before the wait
            waits.set()
            pool.wait(WITHIN_S)
        ended.set()

    thread = threading.Thread(target=feed)
    thread.start()
    assert waits.wait(WITHIN_S)
    happen = {"put": lambda: pool.put(1, held.lease, scored(0)), "wake": pool.wake, "finish": pool.finish}
    happen[event]()
    assert ended.wait(WITHIN_S / 2), "it waited for its timeout"
    thread.join()


def test_what_happens_between_looking_and_waiting_ends_the_wait_at_once() -> None:
    pool = make_pool()
    seen = pool.changes
    pool.wake()
    waiting = threading.Thread(target=pool.wait, args=(WITHIN_S, seen))
    waiting.start()
    waiting.join(WITHIN_S / 2)
    assert not waiting.is_alive()


def test_a_restarted_pool_leases_what_was_out_or_ready_first_and_looks_as_far_ahead() -> None:
    pool = make_pool(chunks_per_step=1)
    fill(pool, 2)
    assert len(pool.take(0)) == 1
    with pool.frozen():
        state = pool.state_dict()
    again = make_pool(chunks_per_step=1)
    again.load_state_dict(state)
    assert again.next_step == pool.next_step == 1
    again.announce(Version(GENERATION, 1))
    held = again.issue(1, 2)
    assert held is not None
    assert held.start == pool._book.chunk_size, "the second chunk, which was ready"
    assert balanced(again.account())
    pool.finish()
    again = make_pool(chunks_per_step=1)
    again.load_state_dict(pool.state_dict())
    again.announce(Version(GENERATION, 1))
    assert again.issue(1, 2) is None, "selection is over"


def test_waiting_on_a_finished_pool_returns_at_once() -> None:
    pool = make_pool()
    pool.finish()
    ended = threading.Thread(target=pool.wait, args=(WITHIN_S,))
    ended.start()
    ended.join(WITHIN_S / 2)
    assert not ended.is_alive()


def test_filling_and_emptying_from_two_threads_consumes_each_chunk_once() -> None:
    pool, num_steps = make_pool(chunks_per_step=2, max_staleness=10**6), 300
    pool.announce(Version(GENERATION, 0))

    def serve() -> None:
        while pool.next_step < num_steps:
            held = pool.issue(1, credits=4)
            if held is not None:
                assert pool.put(1, held.lease, scored(held.start))

    thread = threading.Thread(target=serve)
    thread.start()
    seen = []
    for step in range(num_steps):
        while True:
            looked = pool.changes
            if chunks := pool.take(step):
                break
            pool.wait(WITHIN_S, looked)
        seen += [chunk.start for chunk in chunks]
    thread.join(WITHIN_S)
    assert not thread.is_alive()
    assert seen == [4 * index for index in range(2 * num_steps)]
    assert pool.account()["consumed"] == 2 * num_steps
    assert balanced(pool.account())
