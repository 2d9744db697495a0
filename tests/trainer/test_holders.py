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
        self.away: set[int] = set()

    def first(self, most: int) -> int | None:
        in_line = [one for one in self.held if one not in self.away and self.held[one] < most]
        return min(in_line, key=lambda one: (self.held[one], self.last[one]), default=None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("jjggggwwoie"), st.integers(0, 10**6)), max_size=80))
def test_the_turn_is_that_of_whoever_holds_the_fewest_then_waits_longest_then_came_first(
    calls: list[tuple[str, int]],
) -> None:
    holders, plain = Holders(), Everybody()
    for number, (call, pick) in enumerate(calls, start=1):
        known = list(plain.held)
        one = known[pick % len(known)] if known else -1
        if call == "j":
            holders.join(number)
            plain.held[number] = plain.last[number] = 0
        elif call == "g" and (first := plain.first(MOST)) is not None:
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
            del plain.held[one]
            plain.away -= {one}
        for most in range(MOST + 1):
            assert holders.first(most) == plain.first(most)


def test_whoever_is_not_there_is_left_out() -> None:
    holders = Holders()
    holders.got(1, 1)
    holders.lost(1)
    holders.step_out(1)
    holders.step_in(1)
    holders.leave(1)
    assert holders.first(MOST) is None


def test_a_lease_that_was_not_held_cannot_be_lost() -> None:
    holders = Holders()
    holders.join(1)
    with pytest.raises(AssertionError, match="did not hold"):
        holders.lost(1)
