"""A Chrome trace of the middle of a run."""

import json
import logging
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch

from common.tracing import Tracing


def test_a_trace_holds_so_many_steps_of_the_middle_by_all_threads(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    asked, answered, stop = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def beside() -> None:
        while asked.acquire() and not stop.is_set():
            torch.ones(3).cosh()
            answered.release()

    thread = threading.Thread(target=beside)
    thread.start()
    with Tracing(path, "steps", num=3) as tracing:
        for step in range(10):
            tracing.before(is_middle=step >= 4)
            with torch.profiler.record_function(f"step {step}"):
                torch.ones(3).sinh()
            asked.release()
            assert answered.acquire(timeout=10)
        assert tracing.is_over
    stop.set()
    asked.release()
    thread.join(10)
    events = Counter(event["name"] for event in json.loads(path.read_text())["traceEvents"])
    assert [step for step in range(10) if f"step {step}" in events] == [4, 5, 6]
    assert (events["aten::sinh"], events["aten::cosh"]) == (3, 3)


def test_a_run_that_ends_while_it_records_keeps_what_there_is(tmp_path: Path) -> None:
    with Tracing(tmp_path / "trace.json", "chunks") as tracing:
        tracing.before(is_middle=True)
        torch.ones(3).sinh()
    assert "aten::sinh" in (tmp_path / "trace.json").read_text()


def test_a_trace_that_never_began_is_said_to_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Tracing(tmp_path / "trace.json", "chunks") as tracing:
        tracing.before(is_middle=False)
    assert "no trace was written" in caplog.text
    assert not (tmp_path / "trace.json").exists()
