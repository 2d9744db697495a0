"""The feeder: one batch ahead, waits counted, errors handed over, a bounded end."""

import threading

import pytest

from trainer.feeder import Feeder, Stopped

WITHIN_S = 10.0


def test_batches_come_in_order_of_their_steps() -> None:
    feeder = Feeder(lambda step: step * 10, 3, 8)
    feeder.start()
    assert [feeder.get(step) for step in range(3, 8)] == [30, 40, 50, 60, 70]
    feeder.stop()


def test_the_next_batch_is_prepared_while_the_present_one_is_used_and_no_more_than_that() -> None:
    prepared: list[int] = []
    reached = {step: threading.Event() for step in range(4)}

    def prepare(step: int) -> int:
        prepared.append(step)
        reached[step].set()
        return step

    feeder = Feeder(prepare, 0, 4)
    feeder.start()
    assert feeder.get(0) == 0
    assert reached[1].wait(WITHIN_S), "step 1 is prepared without anybody asking for it"
    feeder.stop()
    assert prepared == [0, 1]


def test_several_batches_are_prepared_ahead_where_that_is_asked_for() -> None:
    prepared: list[int] = []
    reached = {step: threading.Event() for step in range(9)}

    def prepare(step: int) -> int:
        prepared.append(step)
        reached[step].set()
        return step

    feeder = Feeder(prepare, 0, 9, ahead=3)
    feeder.start()
    assert reached[2].wait(WITHIN_S), "nobody has asked for any"
    assert feeder.get(0) == 0
    assert reached[3].wait(WITHIN_S)
    feeder.stop()
    assert prepared == [0, 1, 2, 3]


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
