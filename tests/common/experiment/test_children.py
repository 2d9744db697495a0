"""Processes of a run and what they leave in their logs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.experiment import children
from common.experiment.children import Child, StopSignals, last_lines
from common.processes import SAME_SIGNAL_S


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_logs_are_shown_without_control_codes(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"one\n\n\x1b[31mred\x1b[0m \x07bell\n 10%\r 20%\r 30%\n\xff\n")
    assert last_lines(log, 3) == ["red bell", " 30%", "\ufffd"]
    assert last_lines(log, 1) == ["\ufffd"]
    assert last_lines(tmp_path / "none", 3) == []


def test_an_error_of_several_lines_is_shown_whole(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("INFO begins\nerror: --a is wrong\n--b is wrong\n")
    with subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(2)"]) as process:
        process.wait(30)
    assert Child("trainer", process, log).error() == "error: --a is wrong\n--b is wrong"


def test_a_hang_up_that_comes_twice_is_one_signal_and_what_a_person_sends_later_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(children, "time", clock)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # also where nohup runs the tests
    with StopSignals() as stop:
        for number, later_s in ((signal.SIGHUP, 0.0), (signal.SIGHUP, 0.005), (signal.SIGTERM, SAME_SIGNAL_S / 2)):
            clock.now += later_s
            signal.raise_signal(number)
        assert stop.received == [signal.SIGHUP]
        clock.now += SAME_SIGNAL_S / 2
        signal.raise_signal(signal.SIGINT)
        assert stop.received == [signal.SIGHUP, signal.SIGINT]
