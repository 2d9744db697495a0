"""The model of growth: arithmetic that can be done by hand, at round numbers."""

from dataclasses import replace

import pytest

from tests.bench.scale_costs import SessionCosts
from tests.bench.scale_model import (
    AGE,
    FILES,
    FORWARD,
    IO_FIRST,
    NETWORK,
    SESSIONS,
    ZMQ,
    Costs,
    Scenario,
    fewest_scorers,
    io_share,
    most_scorers,
    used,
)

FREE = SessionCosts(1, *(0.0,) * 7)
COSTS = Costs({1: FREE, 1000: replace(FREE, num=1000)}, 0.0, 0.0, 0.0, send_s_per_byte=0.0, scorer_message_s=0.0)
SCENARIO = Scenario(weights_bytes=1e6, step_s=0.1, chunk_s=0.1, bandwidth=1e8, open_files=10**6)


def test_too_few_scorers_for_the_ranks_is_the_first_limit_and_fewest_scorers_says_how_many_are_enough() -> None:
    shares = used(COSTS, SCENARIO, 4, 8)
    assert max(shares, key=lambda name: shares[name]) == FORWARD
    assert shares[FORWARD] == pytest.approx(10.0)
    assert fewest_scorers(SCENARIO, 8) == 40
    assert used(COSTS, SCENARIO, 40, 8)[FORWARD] == pytest.approx(1.0)


def test_the_network_limits_scorers_to_what_it_carries_in_a_push_period() -> None:
    assert used(COSTS, SCENARIO, 80, 1)[NETWORK] == pytest.approx(1.0)  # 80 of 1 MB in 8 steps of .1 s at 100 MB/s
    assert most_scorers(COSTS, SCENARIO, 1) == (80, NETWORK)
    assert most_scorers(COSTS, replace(SCENARIO, serving=4), 4) == (320, NETWORK)
    assert most_scorers(COSTS, replace(SCENARIO, open_files=100), 1) == (18, FILES)
    assert most_scorers(COSTS, replace(SCENARIO, bandwidth=1e15), 1) == (1024, SESSIONS)


def test_encryption_takes_four_threads_and_the_slower_of_both_makes_weights_old() -> None:
    costs = replace(COSTS, send_s_per_byte=8e-8)
    shares = used(costs, SCENARIO, 80, 1)
    assert shares[ZMQ] == pytest.approx(2.0)
    assert shares[AGE] == pytest.approx((16 + 16 + 6) / 64)
    assert most_scorers(costs, SCENARIO, 1) == (40, ZMQ)
    assert most_scorers(costs, SCENARIO, 1, may_skip=True) == (
        145,
        AGE,
    )  # 2·29 steps, and 6


def test_costs_between_and_beyond_measured_numbers_of_sessions_lie_on_a_line() -> None:
    costs = replace(COSTS, sessions={10: replace(FREE, tick_s=1.0), 20: replace(FREE, tick_s=2.0)})
    assert [costs.of("tick_s", num) for num in (5, 10, 15, 20, 40)] == [0.5, 1.0, 1.5, 2.0, 4.0]


def test_the_share_of_the_io_thread_is_the_sum_of_chunks_heartbeats_ticks_and_pushes() -> None:
    own = SessionCosts(
        1, chunk_s=1e-3, beat_in_s=1e-4, beat_out_s=1e-4, tick_s=1e-3, hand_over_s=1.5e-3, fetch_s=2e-3, bucket_s=0
    )
    costs = replace(COSTS, sessions={1: own, 2: own}, wake_s=5e-4, send_s=5e-4, send_bucket_s=2e-3)
    chunks, beats, ticks = 50 * 2e-3, 10 * 1.2e-3, 10 * 1.5e-3
    assert io_share(costs, SCENARIO, 10, pushes=False) == pytest.approx(chunks + beats + ticks)
    pushes = 10 * (1.5e-3 + 2e-3) / 0.8  # handed over unasked: its one bucket
    assert used(costs, SCENARIO, 10, 1)[IO_FIRST] == pytest.approx(chunks + beats + ticks + pushes)
