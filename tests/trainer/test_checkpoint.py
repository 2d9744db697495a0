"""Checkpoints are whole or absent, the last few stay, and a damaged one is passed over."""

import logging
import time
from pathlib import Path

import pytest
import torch

from common.config.training import CheckpointOptions
from common.errors import ConfigError
from trainer.checkpoint import Checkpoints


def saved(folder: Path, *steps: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, CheckpointOptions(keep=keep))
    for step in steps:
        checkpoints.save(step, {"step": step, "weights": [torch.full((300,), float(step))]})
    checkpoints.close()
    return checkpoints


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_newest_is_loaded_by_number_and_only_the_last_few_stay(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 8, 9, 10)
    assert files(tmp_path) == ["step-10.pt", "step-9.pt"]
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 10
    assert torch.equal(state["weights"][0], torch.full((300,), 10.0))
    assert (checkpoints.num_saved, checkpoints.num_failed) == (3, 0)


def test_tensors_may_change_as_soon_as_save_returns(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointOptions(keep=1))
    weights = torch.zeros(1 << 20)
    checkpoints.save(1, {"weights": weights})
    weights.fill_(1)
    checkpoints.close()
    state = checkpoints.load()
    assert state is not None
    assert state["weights"].max() == 0


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_newest_one_is_passed_over_for_the_one_before(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = tmp_path / "checkpoints" / "step-2.pt"
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[content.index(torch.full((300,), 2.0).numpy().tobytes()) + 99] ^= 1
    path.write_bytes({"cut": content[: len(content) // 2], "bit": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        state = checkpoints.load()
    assert state is not None
    assert state["step"] == 1
    assert "step-2.pt is damaged" in caplog.text


def test_with_every_checkpoint_damaged_the_run_is_refused(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"all 2 checkpoints in .* are damaged"):
        checkpoints.load()


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, CheckpointOptions(keep=1)).load() is None


def test_a_checkpoint_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    torch.save({"path": tmp_path}, tmp_path / "checkpoints" / "step-2.pt")  # an object, which pickle would build
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 1


def test_a_full_disk_keeps_the_previous_checkpoint_and_raises_an_alarm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, 1)

    def full(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        checkpoints.save(2, {"step": 2})
        checkpoints.close()
    assert "ALARM" in caplog.text
    assert "No space left" in caplog.text
    assert (checkpoints.num_saved, checkpoints.num_failed) == (1, 1)
    assert files(tmp_path) == ["step-1.pt"]
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 1


def test_on_a_disk_that_is_really_full_the_previous_checkpoint_is_kept_and_the_next_one_that_fits_is_written(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(small_disk, 1)
    checkpoints.save(2, {"step": 2, "weights": torch.zeros(1 << 20)})
    checkpoints.close()
    assert "ALARM: checkpoint of step 2 was not written: No space left on device; the one" in caplog.text
    assert files(small_disk) == ["step-1.pt"], "nothing half written is left"
    checkpoints.save(3, {"step": 3})
    checkpoints.close()
    assert files(small_disk) == ["step-1.pt", "step-3.pt"]
    assert (checkpoints.num_saved, checkpoints.num_failed) == (2, 1)


def test_what_a_killed_trainer_left_half_written_is_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "checkpoints" / ".step-2.pt.4711").write_bytes(b"half")
    assert checkpoints.load() is not None
    assert files(tmp_path) == ["step-1.pt"]


def test_one_is_due_by_steps_or_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_steps = Checkpoints(tmp_path, CheckpointOptions(every=4, every_s=1e6))
    assert [step for step in range(1, 10) if by_steps.due(step)] == [4, 8]
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    by_time = Checkpoints(tmp_path, CheckpointOptions(every_s=60.0))
    assert not by_time.due(1)
    now[0] = 161.0
    assert by_time.due(2)
    by_time.save(2, {})
    assert not by_time.due(3)
    by_time.close()


def test_what_the_system_said_is_reported_and_not_what_torch_made_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: object, file: object) -> None:
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    saved(tmp_path, 2)
    assert "was not written: No space left on device; the one before" in caplog.text
    assert "inline_container" not in caplog.text


def test_one_that_was_just_written_stays_and_those_of_a_course_that_was_left_go(tmp_path: Path) -> None:
    saved(tmp_path, 50, 100, 200, keep=3)
    (tmp_path / "checkpoints" / "step-200.pt").write_bytes(b"PK")
    state = saved(tmp_path, 150, keep=1).load()
    assert state is not None
    assert state["step"] == 150
    assert files(tmp_path) == ["step-150.pt"]


def test_an_old_one_that_cannot_be_removed_is_a_warning_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-0.pt").mkdir()  # nothing that unlink removes
    checkpoints = saved(tmp_path, 2, keep=1)
    assert (checkpoints.num_saved, checkpoints.num_failed, checkpoints.last_saved_step) == (1, 0, 2)
    assert "step-0.pt is of no more use and cannot be removed" in caplog.text
    assert "ALARM" not in caplog.text
    assert files(tmp_path) == ["step-0.pt", "step-2.pt"]
