"""What a run leaves when the disk does not take all of it."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from common.errors import NotWritten
from common.run import Run
from common.run_folder import has_ended
from tests.trainer import runs
from tests.trainer.runs import summary
from trainer import loop
from trainer.last_files import LastFiles

FULL = OSError(28, "No space left on device")


pytestmark = pytest.mark.usefixtures("own_handlers")


@pytest.fixture
def no_room_for_the_model(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    save = torch.save

    def full(state: Any, file: Any) -> None:
        if "model.pt" in str(getattr(file, "name", "")):
            file.write(b"half")
            raise FULL
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    return monkeypatch


def train(folder: Path, **more: Any) -> int:
    return runs.train(folder, **{"steps": 12, "checkpoint": {"every": 5, "keep": 1}, **more})


def test_a_model_that_does_not_fit_costs_neither_the_summary_nor_the_training_before_the_last_checkpoint(
    tmp_path: Path, no_room_for_the_model: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remedy = "free space there, then go on with --resume, from the checkpoint of step 10"
    caplog.set_level(logging.INFO)
    with pytest.raises(NotWritten, match=rf"after step 12, but model\.pt .*: No space left on device; {remedy}$"):
        train(tmp_path)
    assert NotWritten.exit_code == 2, "another try would meet the same, until somebody has freed space"
    assert "ALARM: model.pt was not written: No space left on device" in caplog.text
    assert "Trained small on synthetic: 12 steps" in caplog.text
    assert "ended at step 12 by NotWritten" in (tmp_path / "trainer.log").read_text()
    assert summary(tmp_path)["unwritten"] == {"model.pt": "No space left on device"}
    assert not list(tmp_path.glob("*model.pt*")), "nothing half written is left"
    assert (tmp_path / "ledger.npz").exists()

    no_room_for_the_model.undo()
    assert train(tmp_path, resume=True) == 0
    resumed = summary(tmp_path)
    assert (resumed["resumed_at_step"], resumed["steps"], "unwritten" in resumed) == (10, 12, False)
    assert torch.load(tmp_path / "model.pt")
    assert has_ended(tmp_path)


def test_a_summary_that_does_not_fit_costs_not_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Run, figures: object) -> None:
        raise FULL

    monkeypatch.setattr(Run, "write_summary", full)
    with pytest.raises(NotWritten, match=r"but summary\.json could not be written"):
        train(tmp_path)
    assert torch.load(tmp_path / "model.pt")
    assert not has_ended(tmp_path)
    monkeypatch.undo()
    assert train(tmp_path, resume=True) == 0
    assert summary(tmp_path)["steps"] == 12


def test_without_a_checkpoint_the_remedy_says_that_the_run_begins_anew(
    tmp_path: Path, no_room_for_the_model: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotWritten, match="--resume, which begins anew, as no checkpoint was written"):
        train(tmp_path, checkpoint={"every": 0})


def test_on_a_disk_that_is_really_full_what_fits_is_kept_and_the_run_is_gone_on_with(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = {"data": "digits", "checkpoint": {"every": 10}}
    filler = small_disk / "filler"

    def fill(*_: Any) -> None:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(filler, filler.stat().st_size - (12 << 10))  # for the summary and some lines of the log

    with monkeypatch.context() as patched:
        patched.setattr(loop, "joint_ledger", fill)
        with pytest.raises(NotWritten, match=r"but model\.pt could not be written to .*: No space left on device"):
            train(small_disk / "run", **larger)
    assert summary(small_disk / "run")["steps"] == 12
    filler.unlink()
    assert train(small_disk / "run", resume=True, **larger) == 0
    assert summary(small_disk / "run")["resumed_at_step"] == 10
    assert torch.load(small_disk / "run" / "model.pt")


def test_what_no_disk_said_rises() -> None:
    def fail(path: Path) -> None:
        raise ValueError("of our own")

    with pytest.raises(ValueError, match="of our own"):
        LastFiles(cast(Run, type("", (), {"folder": Path()}))).write("model.pt", fail)
