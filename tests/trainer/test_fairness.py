"""Sixty-four scorers share the work, also where there is too little of it, and none starves beside faster ones."""

import pytest

from tests.trainer.lease_events import Events, Setting, fairness

NUM = 64
SAME, FASTER_AND_SLOWER = [0.1] * NUM, [0.05 * (1 + number % 4) for number in range(NUM)]


def test_fairness_is_one_for_equal_shares_and_one_nth_for_one_who_has_all() -> None:
    assert fairness([7] * 5) == 1.0
    assert fairness([0, 0, 0, 9]) == 0.25
    assert fairness([1, 3]) == pytest.approx(16 / 20)


@pytest.mark.parametrize("chunk_s", [SAME, FASTER_AND_SLOWER], ids=["same", "different"])
def test_sixty_four_scorers_get_equally_many_leases_where_there_is_less_to_do_than_they_could(
    chunk_s: list[float],
) -> None:
    run = Events(Setting(chunk_s, step_s=0.05, steps=300))
    assert sum(run.served) >= 5 * 290
    assert fairness(run.served) >= 0.95
    assert run.fallbacks <= 3, "the first steps, before any chunk came"


def test_scorers_that_are_all_busy_get_as_much_as_each_can_do() -> None:
    run = Events(Setting(FASTER_AND_SLOWER, step_s=0.05, steps=100, chunks_per_step=NUM))
    by_speed = [sum(run.served[speed::4]) for speed in range(4)]
    assert by_speed == sorted(by_speed, reverse=True)
    assert by_speed[0] == pytest.approx(2 * by_speed[1], rel=0.1)
    assert min(run.served) > 0
