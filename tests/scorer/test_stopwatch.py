"""Where a scorer's time goes."""

from contextlib import contextmanager

from common.protocol import Spent
from scorer.stopwatch import Stopwatch
from tests.scorer.clock import Clock


def test_every_second_belongs_to_one_phase(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now += 1
    with watch.during("load_s"):
        clock.now += 2
    with watch.during("answer_s"):
        clock.now += 8
    clock.now += 4
    assert watch.spent() == Spent(read_s=0, score_s=0, load_s=2, answer_s=8, idle_s=5)


def test_a_phase_that_is_still_running_counts(clock: Clock) -> None:
    watch = Stopwatch()
    with watch.during("answer_s"):
        clock.now += 3
        assert watch.spent().answer_s == 3


def test_what_a_backend_timed_itself_is_taken_from_the_phase_around_it(clock: Clock) -> None:
    watch = Stopwatch()
    with watch.during("answer_s"):
        clock.now += 8
        watch.move("answer_s", "read_s", 1)
        watch.move("answer_s", "score_s", 5)
    assert watch.spent() == Spent(read_s=1, score_s=5, load_s=0, answer_s=2, idle_s=0)


def test_a_new_session_counts_from_its_beginning(clock: Clock) -> None:
    watch = Stopwatch()
    with watch.during("answer_s"):
        clock.now += 8
        watch.begin()
        clock.now += 1
        watch.move("answer_s", "score_s", 5)  # of a chunk that began in the session before
        assert watch.spent() == Spent(read_s=0, score_s=5, load_s=0, answer_s=0, idle_s=0)


def test_phases_are_marked_for_a_trace(clock: Clock) -> None:
    watch, marks = Stopwatch(), []

    @contextmanager
    def mark(name):
        marks.append(name)
        yield
        marks.append(f"end of {name}")

    watch.mark = mark
    with watch.during("load_s"):
        pass
    assert marks == ["load", "end of load"]
