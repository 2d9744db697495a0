"""When others may work: in backward passes, and after a while in any case; nobody waits where nothing is announced."""

import threading
import time

import pytest

from trainer.lull import MOST_S, Lull

WITHIN_S = 10.0


def held_s(lull: Lull, work_s: float = 0.0) -> float:
    started = time.monotonic()
    lull.wait(work_s)
    return time.monotonic() - started


def after_a_step(lull: Lull, waited_s: float = 0.0) -> Lull:
    lull.begin()
    lull.end(waited_s)
    return lull


def test_who_asks_in_a_forward_pass_waits_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.lull.MOST_S", 60.0)
    lull, asking, done = after_a_step(Lull()), threading.Event(), threading.Event()

    def work() -> None:
        asking.set()
        lull.wait()
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert asking.wait(WITHIN_S)
    assert not done.wait(0.05)
    lull.begin()
    assert done.wait(WITHIN_S)
    thread.join()


def test_nobody_waits_longer_than_the_bound_however_often_it_asks() -> None:
    lull = after_a_step(Lull())
    assert MOST_S / 2 < held_s(lull) < 1.0
    started = time.monotonic()
    for _ in range(100):
        lull.wait()
    assert time.monotonic() - started < MOST_S / 2, "the bound is for a step, not for each time"


def test_a_loop_that_announces_nothing_is_not_waited_for() -> None:
    lull = Lull()
    lull.end()
    assert held_s(lull) < MOST_S / 2


def test_a_loop_that_stops_announcing_is_waited_for_no_more() -> None:
    lull = after_a_step(Lull())
    held_s(lull)
    lull.end()
    assert held_s(lull) < MOST_S / 2


def test_where_it_is_not_kept_nobody_waits() -> None:
    assert held_s(after_a_step(Lull(is_kept=False))) < MOST_S / 2


def test_work_that_is_longer_than_a_lull_begins_at_once_and_a_wait_of_training_does_not_count_as_one() -> None:
    lull = Lull()
    lull.begin()
    time.sleep(0.02)
    lull.end(waited_s=0.015)
    assert 0.005 <= lull.lasted_s < 0.2
    assert held_s(lull, work_s=lull.lasted_s + 0.001) < MOST_S / 2
    assert held_s(lull, work_s=lull.lasted_s) > MOST_S / 2


def test_one_long_lull_is_not_taken_for_the_usual_one() -> None:
    lull, lasted = Lull(), []
    for seconds in (0.001, 0.1, 0.1):  # an evaluation, and then slow steps
        lull.begin()
        time.sleep(seconds)
        lull.end()
        lasted.append(lull.lasted_s)
    assert lasted[0] == lasted[1] < 0.1 <= lasted[2]


def test_who_waits_goes_on_where_training_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.lull.MOST_S", 60.0)
    lull = after_a_step(Lull())
    threading.Timer(0.02, lull.release).start()
    assert held_s(lull) < WITHIN_S
    assert held_s(lull) < WITHIN_S
