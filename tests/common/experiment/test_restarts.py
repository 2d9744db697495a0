"""When a process that died is started again."""

import signal

import pytest

from common.experiment.members import restarts_in_words
from common.experiment.restarts import Restarts, pause_s
from tests.common.experiment.members import IN_ORDER, KILLED, RUNS, end, member


class Place:
    """A scorer, a clock that stands still until told, and what is said."""

    def __init__(self, most: int) -> None:
        self.now = 100.0
        self.said: list[str] = []
        self.scorer = member()
        self.restarts = Restarts([self.scorer], most, self.said.append, lambda: self.now)

    def die(self, code: int = KILLED) -> None:
        end(self.scorer, code)
        self.restarts.tick()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.restarts.tick()


def test_each_pause_is_twice_the_one_before_up_to_half_a_minute() -> None:
    assert [pause_s(num) for num in (0, 1, 2, 5, 6, 10**6)] == [0.5, 1, 2, 16, 30, 30]


def test_a_scorer_is_started_again_after_its_pause_and_not_before() -> None:
    place = Place(most=5)
    place.die()
    place.wait(0.4)
    assert len(place.scorer.lives) == 1
    assert place.restarts.words() == "scorer-0 was ended by SIGKILL, starts again in 1 s"
    place.wait(0.1)
    assert (len(place.scorer.lives), place.scorer.is_running, place.restarts.words()) == (2, True, "")
    place.die()
    place.wait(0.9)
    assert len(place.scorer.lives) == 2
    place.wait(0.1)
    assert len(place.scorer.lives) == 3


def test_restarts_are_used_up_at_some_time_and_that_is_said_once() -> None:
    place = Place(most=2)
    for _ in range(5):
        place.die(1)
        place.wait(60)
    assert (place.scorer.num_restarts, len(place.scorer.lives)) == (2, 3)
    assert place.said == [
        "scorer-0 ended with exit code 1; restart 1 of 2 in 0.5 s, see scorer-0.log",
        "scorer-0 ended with exit code 1; restart 2 of 2 in 1 s, see scorer-0.log",
        "scorer-0 ended with exit code 1 after 2 restarts; the run goes on without it, see scorer-0.log",
    ]
    assert restarts_in_words([place.scorer]) == "Started again: scorer-0 (2 times, after exit code 1, exit code 1)"


@pytest.mark.parametrize("code", [IN_ORDER, 2, 3])
def test_a_scorer_that_was_refused_or_ended_in_order_is_left_alone(code: int) -> None:
    place = Place(most=5)
    place.die(code)
    place.wait(60)
    assert len(place.scorer.lives) == 1


def test_a_resumed_trainer_gets_back_the_scorers_that_the_one_before_sent_home_and_no_others() -> None:
    place, trainer = Place(most=5), member("trainer")
    end(place.scorer, IN_ORDER)
    place.restarts.follow_trainer(trainer)
    assert len(place.scorer.lives) == 1
    trainer.restart(resume=True)
    for _ in range(2):
        place.restarts.follow_trainer(trainer)
        assert (len(place.scorer.lives), place.scorer.num_restarts) == (2, 0)
        end(place.scorer, IN_ORDER)  # somebody ends it


def test_a_crash_is_an_unexpected_error_or_a_signal_that_asks_nobody() -> None:
    crashes = []
    for code in (RUNS, 0, 1, 2, 4, 5, 6, 143, KILLED, -signal.SIGSEGV, -signal.SIGTERM, -signal.SIGINT):
        trainer = member("trainer")
        end(trainer, code)
        if trainer.has_crashed:
            crashes.append(code)
    assert crashes == [1, KILLED, -signal.SIGSEGV]


def test_a_process_that_died_of_a_signal_without_a_name_is_told_by_its_number() -> None:
    scorer = member()
    end(scorer, -(signal.SIGRTMIN + 3))
    assert scorer.now.fate() == f"scorer-0 was ended by signal {signal.SIGRTMIN + 3}"
