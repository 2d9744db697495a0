"""The lease book: order, credits, the account, and what it refuses."""

import math

import numpy as np
import pytest

from trainer.leases import LeaseBook, Outstanding, Pace

CHUNK = 8


def book(**changes: int) -> LeaseBook:
    settings = {"chunks_per_step": 2, "max_staleness": 4, "push_every": 2, "first_step": 0, "stop_step": 1000}
    return LeaseBook(CHUNK, Pace(**(settings | changes)))


def issue(leases: LeaseBook, session: int = 1, *, next_step: int = 0, announced: int = 0) -> Outstanding | None:
    return leases.issue(session, next_step=next_step, announced_step=announced, credits=8, now=0.0)


def test_leases_cover_the_positions_in_order_without_gap_or_overlap() -> None:
    leases = book()
    spans = [(held.start, held.stop) for held in (issue(leases), issue(leases, 2), issue(leases)) if held]
    assert spans == [(0, 8), (8, 16), (16, 24)]
    assert leases.next_position == 24


def test_leases_are_issued_until_two_steps_worth_and_the_scorers_credits_are_unconsumed() -> None:
    for credits, most in ((0, 4), (3, 7), (8, 12), (100, 12)):
        leases = book(max_staleness=100)
        issued = [leases.issue(1, next_step=0, announced_step=0, credits=credits, now=0.0) for _ in range(20)]
        assert sum(held is not None for held in issued) == most == leases.most_unconsumed(credits)


def test_ready_chunks_count_against_the_leases_ahead() -> None:
    leases = book(max_staleness=100)
    held = [issue(leases) for _ in range(12)]
    assert issue(leases) is None
    for one in held:
        leases.accept(1, one.lease)
    assert issue(leases) is None
    leases.consume(0)
    assert issue(leases) is not None


def test_a_lost_chunk_is_issued_again_before_new_ones_under_a_new_lease() -> None:
    leases = book()
    first, second, third = issue(leases), issue(leases), issue(leases)
    leases.expire([third.lease, first.lease])
    again = [issue(leases, 2), issue(leases, 2), issue(leases, 2)]
    assert [held.start for held in again] == [first.start, third.start, 24]
    assert len({held.lease for held in (first, second, third, *again)}) == 6
    assert leases.account.expired == 2


def test_expiring_a_lease_twice_counts_once() -> None:
    leases = book()
    held = issue(leases)
    leases.expire([held.lease, held.lease, 77])
    leases.expire([held.lease])
    assert leases.account.expired == 1
    assert issue(leases).start == held.start
    assert issue(leases).start == CHUNK


def test_a_result_counts_only_for_the_current_lease_of_its_session() -> None:
    leases = book()
    held = issue(leases, session=1)
    assert leases.accept(2, held.lease) is None, "foreign"
    assert leases.accept(1, held.lease + 1) is None, "never issued"
    assert leases.accept(1, held.lease) == held
    assert leases.accept(1, held.lease) is None, "duplicate"
    late = issue(leases, session=1)
    leases.expire([late.lease])
    assert leases.accept(1, late.lease) is None, "late"
    assert leases.refused == {"no such lease": 4}
    assert leases.ready == [0]


def test_each_lease_ends_in_one_column_of_the_account() -> None:
    leases = book()
    held = [issue(leases) for _ in range(6)]
    leases.expire([held[0].lease])
    for one in held[1:5]:
        leases.accept(1, one.lease)
    leases.consume(held[1].start)
    leases.drop(held[2].start)
    assert leases.account.outstanding() == 3 == len(leases.outstanding) + len(leases.ready)
    leases.skip_all()
    account = leases.account
    assert (account.leased, account.consumed, account.expired, account.dropped, account.skipped) == (6, 1, 1, 1, 3)
    assert account.outstanding() == 0 == len(leases.outstanding) + len(leases.ready)


def test_a_chunk_is_consumed_or_dropped_at_most_once() -> None:
    leases = book()
    leases.accept(1, issue(leases).lease)
    leases.consume(0)
    with pytest.raises(ValueError, match="not in list"):
        leases.consume(0)
    with pytest.raises(ValueError, match="not in list"):
        leases.drop(0)
    assert leases.account.consumed == 1
    assert leases.account.dropped == 0


def test_a_lease_waits_for_weights_that_will_be_fresh_enough_at_the_step_of_its_use() -> None:
    leases = book(max_staleness=4)
    assert issue(leases, next_step=5, announced=0) is None
    held = issue(leases, next_step=5, announced=1)
    assert held.oldest_step == 1
    assert issue(leases, next_step=5, announced=1).oldest_step == 1, "the second chunk of step 5"
    assert issue(leases, next_step=5, announced=1) is None, "the third is for step 6"
    assert issue(leases, next_step=5, announced=2).oldest_step == 2


def test_a_reissued_lease_is_asked_for_weights_of_the_step_that_now_uses_it() -> None:
    leases = book(max_staleness=4)
    held = [issue(leases, next_step=4, announced=4) for _ in range(4)]
    assert [one.oldest_step for one in held] == [0, 0, 1, 1]
    leases.expire([held[3].lease])
    assert issue(leases, next_step=9, announced=9).oldest_step == 9 + 1 - 4


def test_a_reissued_lease_counts_only_the_chunks_before_it() -> None:
    leases = book(max_staleness=4)
    held = [issue(leases, next_step=4, announced=4) for _ in range(6)]
    leases.accept(1, held[1].lease)
    leases.accept(1, held[3].lease)
    leases.expire([held[2].lease])
    assert issue(leases, next_step=4, announced=4).oldest_step == 1, "two are before it, three behind it"
    leases.expire([held[0].lease])
    assert issue(leases, next_step=4, announced=4).oldest_step == 0, "it is the first"


def test_nothing_is_leased_for_steps_past_the_start_of_the_annealing() -> None:
    leases = book(stop_step=3)
    issued = [issue(leases, next_step=2) for _ in range(5)]
    assert [held is not None for held in issued] == [True, True, False, False, False]
    assert issue(leases, next_step=3) is None


def test_scoring_begins_shortly_before_the_warm_up_ends() -> None:
    leases = book(first_step=100, max_staleness=64, push_every=8)
    lead = leases.pace.warmup_lead
    assert lead == 16
    assert issue(leases, next_step=50, announced=48) is None, "such early scores would be stale for no reason"
    assert issue(leases, next_step=77, announced=100 - lead - 8) is not None
    assert book(first_step=100, max_staleness=3).pace.warmup_lead == 3


def test_selection_that_starts_at_once_is_leased_from_the_first_weights_on() -> None:
    assert issue(book(first_step=0), next_step=0, announced=0) is not None


def test_held_by_lists_a_sessions_leases_oldest_first() -> None:
    leases = book()
    mine = [issue(leases, 1), issue(leases, 2), issue(leases, 1)]
    assert leases.held_by(1) == [mine[0].lease, mine[2].lease]
    assert leases.held_by(3) == []


def wanted_of(start: int, stop: int) -> np.ndarray:
    """Every third chunk wants nothing, the others what a start's bits say."""
    positions = np.arange(start, stop)
    return (positions * 7 + start) % 3 == 0 if (start // CHUNK) % 3 else np.zeros(stop - start, dtype=bool)


def masked_book(calls: list[tuple[int, int]], **changes: int) -> LeaseBook:
    def plan_visit(start: int, stop: int) -> np.ndarray:
        calls.append((start, stop))
        return wanted_of(start, stop)

    leases = book(**changes)
    leases.plan_visit = plan_visit
    return leases


def test_which_positions_want_a_score_is_asked_once_for_each_chunk_in_order() -> None:
    calls: list[tuple[int, int]] = []
    leases = masked_book(calls)
    held = [issue(leases) for _ in range(3)]
    assert calls == [(0, 8), (8, 16), (16, 24)]
    for one in held:
        assert one.wanted.tolist() == wanted_of(one.start, one.stop).tolist()
        assert len(one) == wanted_of(one.start, one.stop).sum()
    assert len(issue(book())) == CHUNK, "without a mask all of them"


def test_nothing_is_planned_for_a_lease_that_is_not_issued() -> None:
    calls: list[tuple[int, int]] = []
    leases = masked_book(calls, max_staleness=0)
    assert issue(leases, next_step=5, announced=4) is None
    assert calls == []


def test_a_reissued_lease_wants_the_same_positions_and_is_not_planned_again() -> None:
    calls: list[tuple[int, int]] = []
    leases = masked_book(calls)
    first, second = issue(leases), issue(leases)
    leases.expire([second.lease, first.lease])
    again = [issue(leases, 2), issue(leases, 3)]
    leases.expire([one.lease for one in again])
    again += [issue(leases), issue(leases)]
    assert [one.start for one in again] == [0, 8, 0, 8]
    for one in again:
        assert one.wanted.tolist() == wanted_of(one.start, one.stop).tolist()
    assert calls == [(0, 8), (8, 16)]
    assert leases.accept(1, again[2].lease).wanted.tolist() == wanted_of(0, 8).tolist()


def test_masks_are_kept_only_as_long_as_their_chunk_may_be_issued_again() -> None:
    leases = masked_book([])
    held = [issue(leases) for _ in range(4)]
    leases.expire([held[0].lease])
    leases.accept(1, held[1].lease)
    assert sorted(leases._wanted) == [0, 8, 16, 24]
    leases.consume(8)
    assert sorted(leases._wanted) == [0, 16, 24]
    leases.skip_all()
    assert leases._wanted == {}


def test_a_sweep_leases_all_samples_at_once_and_then_at_its_rate() -> None:
    leases = book(max_staleness=10**6, chunks_per_step=10**3)
    leases.pace = Pace(10**3, 10**6, 2, 10, 10**6, sweep=(20, 1.5))
    assert [leases.pace.position_limit(step) for step in (0, 10, 11, 14)] == [20, 20, 21.5, 26]
    starts = []
    for next_step in (0, 10, 12, 13, 14, 20):  # 0 is long before the end of the warm-up
        while (held := issue(leases, next_step=next_step)) is not None:
            starts.append((next_step, held.start))
    assert starts == [(10, 0), (10, 8), (10, 16), (13, 24), (20, 32)]


def test_a_lost_chunk_of_a_sweep_is_leased_again_although_the_limit_is_reached() -> None:
    leases = book(max_staleness=10**6)
    leases.pace = Pace(2, 10**6, 2, 0, 10**6, sweep=(8, 0.0))
    held = issue(leases)
    assert issue(leases) is None
    leases.expire([held.lease])
    assert issue(leases).start == held.start
    assert issue(leases) is None


def test_without_a_sweep_positions_have_no_end() -> None:
    assert book().pace.position_limit(0) == math.inf


def test_after_a_restart_what_was_out_or_ready_is_leased_first_with_its_mask_and_the_account_balances() -> None:
    leases = masked_book([])
    held = [issue(leases) for _ in range(5)]
    for one in held[:3]:
        leases.accept(1, one.lease)
    leases.consume(0)
    leases.expire([held[4].lease])
    calls: list[tuple[int, int]] = []
    restarted = masked_book(calls)
    restarted.load_state_dict(leases.state_dict())
    assert restarted.account.outstanding() == 0
    assert (restarted.account.leased, restarted.account.consumed, restarted.account.expired) == (5, 1, 4)
    again = [issue(restarted) for _ in range(4)]
    assert [one.start for one in again] == [8, 16, 24, 32]
    assert [one.wanted.tolist() for one in again] == [wanted_of(one.start, one.stop).tolist() for one in again]
    assert calls == []
    assert issue(restarted).start == 40
    assert min(one.lease for one in again) > max(one.lease for one in held)
