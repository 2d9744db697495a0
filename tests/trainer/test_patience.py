"""How much of what nobody asked for is listened to."""

import pytest

from trainer import patience
from trainer.patience import (
    BYTES_AT_ONCE,
    DEAF_S,
    MAX_PEERS,
    MESSAGES_AT_ONCE,
    MESSAGES_PER_S,
    STRIKES_AT_ONCE,
    Patience,
)

MIB = 1 << 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed in place."""
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    return now


def use_up(own: Patience, peer: str = "a") -> int:
    """Messages until it is too much."""
    num = 0
    while num < 10_000 and own.charge(peer, 1):
        num += 1
    return num


def test_a_peer_may_say_so_much_at_once_and_is_then_not_heard_for_a_while(clock: list[float]) -> None:
    own = Patience()
    assert use_up(own) == MESSAGES_AT_ONCE
    assert own.is_deaf_to("a")
    assert not own.is_deaf_to("b")
    clock[0] += DEAF_S
    assert not own.is_deaf_to("a")


def test_what_was_asked_for_costs_nothing(clock: list[float]) -> None:
    own = Patience()
    for _ in range(10 * int(MESSAGES_AT_ONCE)):
        assert own.charge("a", 19 * MIB)
        own.give_back("a", 19 * MIB)
    assert use_up(own) == MESSAGES_AT_ONCE


def test_the_allowance_fills_up_with_time_and_no_further(clock: list[float]) -> None:
    own = Patience()
    use_up(own)
    clock[0] += 2.0
    assert use_up(own) == 2 * MESSAGES_PER_S
    clock[0] += 1e6
    assert use_up(own) == MESSAGES_AT_ONCE


def test_bytes_count_as_well_as_messages(clock: list[float]) -> None:
    own = Patience()
    assert own.charge("a", int(BYTES_AT_ONCE))
    assert not own.charge("a", 1)


def test_late_answers_of_a_run_with_large_ones_are_within_the_allowance(clock: list[float]) -> None:
    own = Patience(largest_bytes=512 * MIB)
    assert all(own.charge("a", 512 * MIB) for _ in range(8))


def test_nonsense_is_forgiven_with_time(clock: list[float]) -> None:
    own = Patience()
    assert [own.strike("a") for _ in range(int(STRIKES_AT_ONCE))] == [False] * (int(STRIKES_AT_ONCE) - 1) + [True]
    assert own.strike("a"), "in a session of its own too"
    clock[0] += 600.0
    assert not own.strike("a")


def test_so_many_peers_are_remembered_and_no_more(clock: list[float]) -> None:
    own = Patience()
    for peer in range(2 * MAX_PEERS):
        own.charge(peer, 1)
    assert len(own) == MAX_PEERS
