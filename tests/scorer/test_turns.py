"""Which leases are scored together: those that are due next, of one session, and never all that there will be."""

from collections.abc import Sequence

import pytest

from common.protocol import Lease, Version
from scorer.inbox import Inbox
from scorer.turns import Turns
from tests.scorer.leases import GENERATION, version, welcome


def inbox(rank: int, numbers: Sequence[int], *, audits: Sequence[int] = (), oldest_step: int = 0) -> Inbox:
    begun = welcome(("mms",), rank=rank, num_ranks=2, session=1 + rank)
    made = Inbox()
    made.begin(begun)
    for number in numbers:
        is_audit = number in audits
        made.add_lease(Lease(number, GENERATION, 0, 64, b"", oldest_step, 60.0 + number, None, is_audit))
    return made


def taken(turns: Turns, inboxes: Sequence[Inbox], most: int, resident: Version | None = None) -> list[int]:
    work = turns.next_work(inboxes, version() if resident is None else resident, most)
    if work is None:
        return []
    assert isinstance(work.order, Lease)
    return [work.order.lease, *(one.lease for one in work.along)]


def test_half_of_the_leases_are_scored_together_and_new_ones_are_on_their_way_meanwhile() -> None:
    turns, own = Turns(), inbox(0, [1, 2, 3, 4, 5, 6])
    assert taken(turns, [own], 8) == [1, 2, 3]
    for number in (1, 2, 3):
        del own.leases[number]
    assert taken(turns, [own], 8) == [4, 5, 6], "three left, and the answers to three bring as many"
    own.leases.clear()
    assert taken(turns, [own], 8) == []


@pytest.mark.parametrize(("num", "most"), [(1, 8), (2, 8), (6, 1)])
def test_a_lease_is_alone_where_there_are_few_or_one_is_wanted_at_a_time(num: int, most: int) -> None:
    assert taken(Turns(), [inbox(0, range(1, num + 1))], most) == [1]


def test_of_an_odd_number_the_larger_half_comes_first_and_then_the_rest() -> None:
    turns, own = Turns(), inbox(0, [1, 2, 3, 4, 5])
    assert taken(turns, [own], 8) == [1, 2, 3]
    for number in (1, 2, 3):
        del own.leases[number]
    assert taken(turns, [own], 8) == [4, 5], "nobody waits for those that are on their way"


@pytest.mark.parametrize(("held", "expected"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3)])
def test_those_that_have_come_are_not_counted_as_on_their_way(held: int, expected: int) -> None:
    turns, own = Turns(), inbox(0, range(held))
    for start in range(held, 5 * held, held):
        done = taken(turns, [own], 8)
        assert len(done) == expected
        for number in done:
            del own.leases[number]
        own.leases |= inbox(0, range(start, start + len(done))).leases  # while weights are loaded, say


def test_no_more_than_the_backend_wants() -> None:
    assert taken(Turns(), [inbox(0, range(1, 13))], 4) == [1, 2, 3, 4]


def test_no_rank_waits_for_what_is_due_later_at_another_one() -> None:
    first, second = inbox(0, [1, 3, 4, 5]), inbox(1, [2, 6, 7, 8])
    assert taken(Turns(), [first, second], 8) == [1], "2 is the other's, and is due next"
    del second.leases[2]
    assert taken(Turns(), [first, second], 8) == [1, 3, 4, 5]


def test_an_audit_is_by_itself() -> None:
    assert taken(Turns(), [inbox(0, range(1, 9), audits=[3])], 8) == [1, 2]
    assert taken(Turns(), [inbox(0, range(1, 9), audits=[1])], 8) == [1]


def test_only_leases_that_the_resident_weights_may_serve_are_counted() -> None:
    turns, own = Turns(), inbox(0, [1, 2, 3], oldest_step=9)
    own.leases |= inbox(0, [4, 5, 6, 7, 8], oldest_step=10).leases
    assert taken(turns, [own], 8, version(9)) == [1, 2]
    assert taken(Turns(), [own], 8, version(10)) == [1, 2, 3, 4]
