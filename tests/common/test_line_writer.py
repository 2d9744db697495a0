"""A disk that is full costs lines of a record, and not the run that writes it."""

import json
import os
from pathlib import Path

import pytest

from common.config import TrainerOptions
from common.experiment.progress import Tail
from common.line_writer import LineWriter
from common.run import Run

FULL = OSError(28, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many bytes more it takes: `room`."""
    state, write = {"room": 1 << 30}, os.write

    def limited(descriptor: int, data: bytes) -> int:
        if not state["room"]:
            raise FULL
        written = write(descriptor, data[: state["room"]])
        state["room"] -= written
        return written

    monkeypatch.setattr(os, "write", limited)
    return state


def test_a_full_disk_is_reported_once_and_the_lines_are_counted_when_there_is_room(
    tmp_path: Path, disk: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    lines = LineWriter(tmp_path / "metrics.jsonl")
    assert lines.write(["one"])
    disk["room"] = 0
    assert not any([lines.write(["two"]), lines.write(["three"]), lines.write(["kept"], kept=True)])
    disk["room"] = 1 << 30
    assert lines.write(["four"])
    assert (tmp_path / "metrics.jsonl").read_text() == "one\nfour\n"
    assert caplog.messages == [
        "ALARM: metrics.jsonl is not written: No space left on device; the run goes on",
        "metrics.jsonl is written again; 2 lines of it are missing",
    ]


def test_half_a_line_is_taken_back(tmp_path: Path, disk: dict[str, int]) -> None:
    lines, tail = LineWriter(tmp_path / "file"), Tail(tmp_path / "file")
    lines.write(["one"])
    disk["room"] = 2
    lines.write(["two"])
    assert (tmp_path / "file").read_text() == "one\n"
    assert tail.read() == ["one"]
    disk["room"] = 99
    lines.write(["three"])
    assert tail.read() == ["three"]


def test_half_a_line_that_stays_does_not_grow_into_the_next_one(
    tmp_path: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, size: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "ftruncate", refused)
    lines = LineWriter(tmp_path / "file")
    disk["room"] = 2
    lines.write(["two"])
    disk["room"] = 99
    lines.write(["three"])
    assert (tmp_path / "file").read_text() == "tw\nthree\n"


def test_a_real_device_without_room_does_not_raise(caplog: pytest.LogCaptureFixture) -> None:
    assert not LineWriter(Path("/dev/full")).write(["one"])
    assert "ALARM: full is not written: No space left on device; the run goes on" in caplog.text


def test_a_run_goes_on_while_its_metrics_cannot_be_written(tmp_path: Path, disk: dict[str, int]) -> None:
    with Run(TrainerOptions.model_validate({"out": tmp_path, "log": {"tensorboard": False}})) as run:
        for run.step in (1, 2, 3):
            disk["room"] = 9 if run.step == 2 else 1 << 30
            run.log(loss=1.0)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 3]
