"""The feeder: one batch ahead, waits counted, errors handed over, a bounded end."""

import os
import threading
import time

import pytest

from common.errors import PeerTimeout
from common.scheduling import TALKING_CORES
from trainer.feeder import LITTLE, Feeder, Stopped
from trainer.lull import Lull

WITHIN_S = 10.0
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def test_batches_come_in_order_of_their_steps() -> None:
    feeder = Feeder(lambda step: step * 10, 3, 8)
    feeder.start()
    assert [feeder.get(step) for step in range(3, 8)] == [30, 40, 50, 60, 70]
    feeder.stop()


class Noted:
    """Prepares a step's number, and notes which ones were prepared."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.reached = {step: threading.Event() for step in range(9)}

    def __call__(self, step: int) -> int:
        self.steps.append(step)
        self.reached[step].set()
        return step


def test_the_next_batch_is_prepared_while_the_present_one_is_used_and_no_more_than_that() -> None:
    prepare = Noted()
    feeder = Feeder(prepare, 0, 4)
    feeder.start()
    assert feeder.get(0) == 0
    assert prepare.reached[1].wait(WITHIN_S), "step 1 is prepared without anybody asking for it"
    feeder.stop()
    assert prepare.steps == [0, 1]


def test_several_batches_are_prepared_ahead_where_that_is_asked_for() -> None:
    prepare = Noted()
    feeder = Feeder(prepare, 0, 9, ahead=3)
    feeder.start()
    assert prepare.reached[2].wait(WITHIN_S), "nobody has asked for any"
    assert feeder.get(0) == 0
    assert prepare.reached[3].wait(WITHIN_S)
    feeder.stop()
    assert prepare.steps == [0, 1, 2, 3]


def test_two_batches_are_prepared_one_after_the_other_once_both_are_missing() -> None:
    prepare = Noted()
    feeder = Feeder(prepare, 0, 9, ahead=2, at_a_time=2)
    feeder.start()
    assert prepare.reached[1].wait(WITHIN_S), "nobody has asked for any"
    assert feeder.get(0) == 0
    assert not prepare.reached[2].wait(0.1), "one is still there"
    assert feeder.get(1) == 1
    assert prepare.reached[3].wait(WITHIN_S)
    feeder.stop()
    assert prepare.steps == [0, 1, 2, 3]


def held_feeder(prepare: Noted, monkeypatch: pytest.MonkeyPatch, **more: int) -> tuple[Feeder[int], Lull]:
    """A feeder beside a training step whose backward pass takes long; it has been asked for step 0."""
    monkeypatch.setattr("trainer.lull.MOST_S", 60.0)
    lull = Lull()
    feeder = Feeder(prepare, 0, 9, lull=lull, **more)
    feeder.start()
    assert prepare.reached[more.get("ahead", 1) - 1].wait(WITHIN_S)
    lull.begin()
    time.sleep(0.1)
    assert feeder.get(0) == 0
    return feeder, lull


def test_the_next_batch_is_prepared_in_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Noted()
    feeder, lull = held_feeder(prepare, monkeypatch)
    assert not prepare.reached[1].wait(0.1), "the forward pass is not over"
    lull.begin()
    assert prepare.reached[1].wait(WITHIN_S)
    feeder.stop()


def test_a_batch_that_is_awaited_is_prepared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Noted()
    feeder, _ = held_feeder(prepare, monkeypatch)
    assert not prepare.reached[1].wait(0.1)
    started = time.monotonic()
    assert feeder.get(1) == 1, "a loop that asks without a backward pass"
    assert time.monotonic() - started < WITHIN_S
    feeder.stop()


def test_a_feeder_that_is_held_comes_to_rest_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Noted()
    feeder, _ = held_feeder(prepare, monkeypatch)
    assert not prepare.reached[1].wait(0.1)
    started = time.monotonic()
    with feeder.parked():
        pass
    feeder.stop()
    assert time.monotonic() - started < WITHIN_S


def test_batches_that_take_longer_than_a_backward_pass_are_prepared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Noted()

    def slowly(step: int) -> int:
        time.sleep(0.05)
        return prepare(step)

    lull = Lull()
    monkeypatch.setattr("trainer.lull.MOST_S", 60.0)
    feeder = Feeder(slowly, 0, 9, lull=lull)
    feeder.start()
    assert prepare.reached[0].wait(WITHIN_S)
    lull.begin()
    assert feeder.get(0) == 0
    assert prepare.reached[1].wait(WITHIN_S)
    feeder.stop()


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores and pinning")
def test_little_work_is_done_on_the_scorers_core_and_much_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TALKING_CORES, str(CORES[1]))
    cores: list[set[int]] = []
    busy_s = 0.0

    def prepare(step: int) -> int:
        cores.append(os.sched_getaffinity(0))
        time.sleep(busy_s)
        return step

    def train(step: int) -> None:
        feeder.get(step)
        lull.begin()
        time.sleep(0.1)

    lull = Lull()
    feeder = Feeder(prepare, 0, 20, lull=lull)
    os.sched_setaffinity(0, {CORES[0]})
    try:
        feeder.start()
        for step in range(4):
            train(step)
        assert cores[0] == {CORES[0]}, "nothing is known yet"
        assert cores[-1] == {CORES[1]}
        busy_s = 0.1 * LITTLE * 2
        for step in range(4, 8):
            train(step)
        assert cores[-1] == {CORES[0]}
    finally:
        os.sched_setaffinity(0, CORES)
        feeder.stop()


def test_an_error_in_prepare_is_raised_where_the_batch_is_asked_for() -> None:
    def prepare(step: int) -> int:
        if step == 1:
            raise KeyError("sample 7")
        return step

    feeder = Feeder(prepare, 0, 4)
    feeder.start()
    assert feeder.get(0) == 0
    with pytest.raises(KeyError, match="sample 7"):
        feeder.get(1)
    feeder.stop()


def test_prepare_can_see_that_the_training_thread_stands_still() -> None:
    wait, woken = threading.Event(), []

    def prepare(step: int) -> bool:
        assert wait.wait(WITHIN_S)
        return feeder.is_awaited

    feeder = Feeder(prepare, 0, 1, wake=wait.set)
    feeder.start()
    assert feeder.get(0, woken.append) is True
    assert not feeder.is_awaited
    assert feeder.waited_s > 0
    feeder.stop()


def test_nobody_waits_for_the_batch_after_the_one_that_was_waited_for() -> None:
    gate, seen, second = threading.Event(), [], threading.Event()

    def prepare(step: int) -> int:
        assert gate.wait(WITHIN_S)
        seen.append(feeder.is_awaited)
        if step == 1:
            second.set()
        return step

    feeder = Feeder(prepare, 0, 2, ahead=2, at_a_time=2, wake=gate.set)
    feeder.start()
    feeder.get(0)
    assert second.wait(WITHIN_S)
    feeder.stop()
    assert seen == [True, False]


def test_a_batch_in_stock_costs_no_wait() -> None:
    second = threading.Event()

    def prepare(step: int) -> int:
        if step == 1:
            second.set()
        return step

    feeder = Feeder(prepare, 0, 2)
    feeder.start()
    feeder.get(0)
    waited_s = feeder.waited_s
    assert second.wait(WITHIN_S)
    with feeder._changed:
        assert feeder._changed.wait_for(lambda: 1 in feeder._ready, WITHIN_S)
    feeder.get(1)
    assert feeder.waited_s == waited_s
    feeder.stop()


def test_waiting_can_be_ended_by_its_callback() -> None:
    gate = threading.Event()
    feeder = Feeder(lambda step: gate.wait(WITHIN_S), 0, 1)
    feeder.start()

    def give_up(waited_s: float) -> None:
        raise TimeoutError(f"waited {waited_s:.1f} s")

    with pytest.raises(TimeoutError, match="waited"):
        feeder.get(0, give_up)
    assert not feeder.is_awaited
    gate.set()
    feeder.stop()


def test_stop_ends_a_prepare_that_waits_and_leaves_no_thread() -> None:
    waits = threading.Event()

    def prepare(step: int) -> int:
        waits.set()
        with feeder._changed:
            assert feeder._changed.wait_for(lambda: feeder.stopping, WITHIN_S)
        raise Stopped

    feeder = Feeder(prepare, 0, 1)
    feeder.start()
    assert waits.wait(WITHIN_S)
    feeder.stop()
    assert not feeder._thread.is_alive()


def test_a_feeder_that_was_never_started_stops() -> None:
    Feeder(lambda step: step, 0, 1).stop()


def test_a_parked_feeder_stands_between_two_batches_and_goes_on_when_it_is_let() -> None:
    began, finish = threading.Event(), threading.Event()
    prepared: list[int] = []

    def prepare(step: int) -> int:
        prepared.append(step)
        if step == 1:
            began.set()
            assert finish.wait(WITHIN_S)
        return step

    feeder = Feeder(prepare, 0, 5, ahead=9, wake=finish.set)
    feeder.start()
    assert began.wait(WITHIN_S)
    with feeder.parked() as ready:  # which wakes it; a batch that is half done is not interrupted
        assert ready == {0: 0, 1: 1}
        assert prepared == [0, 1], "nothing is prepared meanwhile"
    assert [feeder.get(step) for step in range(5)] == list(range(5))
    feeder.stop()


def test_a_feeder_that_waits_for_better_is_parked_where_it_waits() -> None:
    arrived, looked, woken = threading.Event(), threading.Event(), threading.Event()

    def prepare(step: int) -> int:
        while not arrived.is_set():
            looked.set()
            feeder.rest()
            woken.wait(0.2)
        return step

    feeder = Feeder(prepare, 7, 8, wake=woken.set)
    feeder.start()
    assert looked.wait(WITHIN_S)
    with feeder.parked() as ready:
        assert ready == {}
        arrived.set()
    assert feeder.get(7) == 7
    with feeder.parked():  # its thread has ended: there is nothing left to prepare
        pass
    feeder.stop()


def test_a_restored_feeder_hands_out_what_was_ready_and_prepares_what_follows() -> None:
    feeder = Feeder(lambda step: 10 * step, 0, 7, ahead=2)
    feeder.restore(3, {3: -3, 4: -4}, waited_s=1.5, busy_s=2.5)
    feeder.start()
    assert [feeder.get(step) for step in range(3, 7)] == [-3, -4, 50, 60]
    assert feeder.waited_s >= 1.5
    assert feeder.busy_s >= 2.5
    feeder.stop()


def test_an_error_of_prepare_leaves_no_state_to_save() -> None:
    def prepare(step: int) -> int:
        raise KeyError("sample 7")

    feeder = Feeder(prepare, 0, 4)
    feeder.start()
    with pytest.raises(KeyError, match="sample 7"), feeder.parked():
        pass
    feeder.stop()


def test_a_feeder_that_does_not_come_to_rest_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.feeder.PARK_S", 0.05)
    began, gate = threading.Event(), threading.Event()

    def prepare(step: int) -> int:
        began.set()
        gate.wait(WITHIN_S)
        return step

    feeder = Feeder(prepare, 0, 1)
    feeder.start()
    assert began.wait(WITHIN_S)
    with pytest.raises(PeerTimeout, match="the next batch to be read"), feeder.parked():
        pass
    gate.set()
    assert feeder.get(0) == 0
    feeder.stop()
