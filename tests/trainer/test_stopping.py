"""The first signal asks a run to end, the second ends the process."""

import signal
from collections.abc import Iterator

import pytest

from common.processes import SAME_SIGNAL_S
from trainer import stopping
from trainer.stopping import EVALUATION_S, Stopping


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup around the tests has ignored
    clock = Clock()
    monkeypatch.setattr(stopping, "time", clock)
    yield clock
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_the_run_in_order_and_a_later_second_one_ends_the_process(
    number: signal.Signals, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[int] = []
    asked = Stopping(lambda: stops.append(1))
    signal.raise_signal(number)
    assert (asked.received, stops) == (number, [1])
    clock.now += SAME_SIGNAL_S / 2
    signal.raise_signal(signal.SIGTERM)  # of a supervisor that was told together with its process group
    assert stops == [1]
    clock.now += SAME_SIGNAL_S
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    asked._on_signal(signal.SIGTERM, None)
    assert raised == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_after_some_seconds_a_stopped_run_is_late(clock: Clock) -> None:
    asked = Stopping(lambda: None)
    clock.now += 1e6
    assert not asked.is_late()
    signal.raise_signal(signal.SIGTERM)
    assert not asked.is_late()
    clock.now += EVALUATION_S + 1
    assert asked.is_late()


def test_under_nohup_a_closed_terminal_stops_nothing(clock: Clock) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asked = Stopping(lambda: None)
    signal.raise_signal(signal.SIGHUP)
    assert asked.received is None
