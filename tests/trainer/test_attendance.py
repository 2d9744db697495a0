"""Whether scorers are there, and what a run does that requires one."""

import pytest

from common.config import TrainerOptions
from common.errors import NoScorer
from trainer.attendance import Attendance

ENDPOINT = "ipc:///tmp/here"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stands still at 100 s until its only element is changed."""
    now = [100.0]
    monkeypatch.setattr("trainer.attendance.time.monotonic", lambda: now[0])
    return now


def test_absence_counts_from_the_end_of_the_wait_for_scorers(clock: list[float]) -> None:
    attendance = Attendance()
    clock[0] = 160.0
    assert attendance.absent_s() == 0
    attendance.begin()
    clock[0] = 165.0
    assert attendance.absent_s() == 5


def test_absence_counts_from_when_the_last_scorer_left_and_ends_when_one_comes(clock: list[float]) -> None:
    attendance = Attendance()
    attendance.begin()
    seen = []
    for now, num in ((101.0, 1), (105.0, 2), (110.0, 1), (120.0, 0), (121.0, 0), (130.0, 0), (131.0, 1)):
        clock[0] = now
        attendance.note(num, now)
        seen.append(attendance.absent_s())
    assert seen == [0, 0, 0, 0, 1, 10, 0]


def test_a_run_that_requires_a_scorer_is_told_for_how_long_there_was_none_and_what_to_do(clock: list[float]) -> None:
    attendance = Attendance()
    attendance.begin()
    clock[0] = 130.0
    attendance.require(30.0, ENDPOINT)
    clock[0] = 131.0
    with pytest.raises(NoScorer, match=r"no scorer .* for 31 s, .*require-scorer-s is 30; .*--connect ipc:///tmp/here"):
        attendance.require(30.0, ENDPOINT)
    attendance.require(0.0, ENDPOINT)
    attendance.note(1, 131.0)
    attendance.require(30.0, ENDPOINT)
    assert TrainerOptions().service.require_scorer_s == 0
