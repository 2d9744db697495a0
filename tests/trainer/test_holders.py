"""Who holds how many leases and whose turn it is to get one, held against a look at everybody."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.holders import Holders

MOST = 2


class Everybody:
    """The definition: all that joined, in that order, and the least of those in line."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.most: dict[int, int] = {}
        self.away: set[int] = set()

    def first(self) -> int | None:
        in_line = [one for one in self.held if one not in self.away and self.held[one] < self.most[one]]
        return min(in_line, key=lambda one: (self.held[one], self.last[one]), default=None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("jjggggwwoiea"), st.integers(0, 10**6)), max_size=80))
def test_the_turn_is_that_of_whoever_holds_the_fewest_then_waits_longest_then_came_first(
    calls: list[tuple[str, int]],
) -> None:
    holders, plain = Holders(), Everybody()
    for number, (call, pick) in enumerate(calls, start=1):
        known = list(plain.held)
        one = known[pick % len(known)] if known else -1
        if call == "j":
            holders.join(number, MOST)
            plain.held[number] = plain.last[number] = 0
            plain.most[number] = MOST
        elif call == "a":
            holders.allow(one, 1 + pick % 4)
            plain.most |= dict.fromkeys({one} & set(known), 1 + pick % 4)
        elif call == "g" and (first := plain.first()) is not None:
            holders.got(first, number)
            plain.held[first], plain.last[first] = plain.held[first] + 1, number
        elif call == "w" and plain.held.get(one):
            holders.lost(one)
            plain.held[one] -= 1
        elif call == "o":
            holders.step_out(one)
            plain.away |= {one} & set(known)
        elif call == "i":
            holders.step_in(one)
            plain.away -= {one}
        elif call == "e" and known:
            holders.leave(one)
            del plain.held[one], plain.most[one]
            plain.away -= {one}
        assert holders.first() == plain.first()
        assert holders.credits == sum(plain.most.values())


def test_whoever_is_not_there_is_left_out() -> None:
    holders = Holders()
    holders.got(1, 1)
    holders.lost(1)
    holders.step_out(1)
    holders.step_in(1)
    holders.allow(1, 4)
    holders.leave(1)
    assert (holders.first(), holders.credits) == (None, 0)


def test_a_lease_that_was_not_held_cannot_be_lost() -> None:
    holders = Holders()
    holders.join(1, MOST)
    with pytest.raises(AssertionError, match="did not hold"):
        holders.lost(1)
