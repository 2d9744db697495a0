"""Lines that come without end, and what is left of them."""

import logging

import pytest

from common import sparing_log
from common.sparing_log import SparingLog


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_one_line_of_a_kind_in_some_time_and_the_next_counts_those_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(sparing_log, "time", clock)
    log = SparingLog(logging.getLogger("test"), every_s=10.0)
    for now, kind in ((0, "a"), (1, "a"), (2, "b"), (9.9, "a"), (10, "a"), (11, "b"), (20, "a")):
        clock.now = now
        log.say(kind, f"{kind} at {now}")
    assert caplog.messages == ["a at 0", "b at 2", "a at 10 (2 more like this were left out)", "a at 20"]


def test_a_few_lines_at_once_where_asked_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    monkeypatch.setattr(sparing_log, "time", clock)
    log = SparingLog(logging.getLogger("test"), every_s=10.0, at_once=2)
    for now in (0, 1, 2, 3, 10):
        clock.now = now
        log.say("a", f"at {now}")
    assert caplog.messages == ["at 0", "at 1", "at 10 (2 more like this were left out)"]
