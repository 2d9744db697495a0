"""A checkpoint of several ranks is whole when rank 0's part is there, and that comes last."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config.training import CheckpointOptions
from common.errors import ConfigError
from trainer.checkpoint import Checkpoints
from trainer.ranks import rank_files
from trainer.ranks.group import ALONE, Group


class Alone(Group):
    """A rank whose collectives know only itself: what it writes and reads is looked at, rank by rank."""

    def share(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]


def checkpoints(folder: Path, rank: int, size: int = 2, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, CheckpointOptions(keep=keep), Alone(rank, size))


def save(
    folder: Path, step: int, *, ranks: tuple[int, ...] = (1, 0), size: int = 2, generation: int = 1
) -> Checkpoints:
    """Each rank saves its part; rank 0 is the last one here, so that nobody need wait."""
    for rank in ranks:
        saving = checkpoints(folder, rank, size)
        state: dict[str, Any] = {"step": step, "generation": generation, "num_ranks": size, "record": {"of": rank}}
        state |= {"learner": {"weights": torch.full((8,), float(step))}} if rank == 0 else {"rank": {"seed": rank}}
        saving.save(step, state, own={"batches": {"of": rank}})
        assert saving.close()
    return saving


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_each_rank_goes_on_from_its_own_part_and_from_the_model_of_rank_0(tmp_path: Path) -> None:
    save(tmp_path, 3)
    for rank in (0, 1):
        state = checkpoints(tmp_path, rank).load()
        assert state is not None
        assert (state["batches"], state["record"]) == ({"of": rank}, {"of": rank})
        assert torch.equal(state["learner"]["weights"], torch.full((8,), 3.0))
        assert state.get("rank") == ({"seed": 1} if rank else None)
        assert "shards" not in state


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_of_ranks_gets_what_all_of_them_had(tmp_path: Path, size: int) -> None:
    save(tmp_path, 3)
    for rank in range(size):
        state = checkpoints(tmp_path, rank, size).load()
        assert state is not None
        assert state["shards"] == [{"of": 0}, {"of": 1}]
        assert state.get("rank") == ({"seed": 1} if rank == 1 else None)


def test_what_one_rank_saved_is_for_several_as_well(tmp_path: Path) -> None:
    alone = Checkpoints(tmp_path, CheckpointOptions())
    alone.save(3, {"step": 3, "generation": 1, "learner": {}, "record": {}}, own={"batches": {"of": 0}})
    assert alone.close()
    assert files(tmp_path) == ["step-3.pt"]
    for rank in (0, 1):
        state = checkpoints(tmp_path, rank).load()
        assert state is not None
        assert state["shards"] == [{"of": 0}]


def test_rank_0_commits_when_the_others_have_written_theirs(tmp_path: Path) -> None:
    first = checkpoints(tmp_path, 0)
    first.save(3, {"step": 3, "generation": 1}, own={})
    assert not (tmp_path / "checkpoints" / "step-3.pt").exists()
    save(tmp_path, 3, ranks=(1,))
    assert first.close()
    assert files(tmp_path) == ["step-3.pt", "step-3.rank-1.pt"]
    assert first.last_saved_step == 3


def test_a_rank_that_cannot_write_costs_that_checkpoint_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 3)
    monkeypatch.setattr(rank_files, "PARTS_S", 0.1)
    failed = save(tmp_path, 4, ranks=(0,))
    assert (failed.num_saved, failed.num_failed) == (0, 1)
    assert "ALARM: checkpoint of step 4 was not written" in caplog.text
    assert "step-4.rank-1.pt never came; see the log of that rank" in caplog.text
    assert files(tmp_path) == ["step-3.pt", "step-3.rank-1.pt"]
    save(tmp_path, 5)
    assert files(tmp_path) == ["step-3.pt", "step-3.rank-1.pt", "step-5.pt", "step-5.rank-1.pt"]


def test_a_rank_that_ends_by_an_error_does_not_wait_long_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_files, "HURRIED_S", 0.0)
    first = checkpoints(tmp_path, 0)
    first.save(3, {"step": 3, "generation": 1}, own={})
    first.hurry()
    assert first.close(), "else it waits for 90 s"
    assert first.num_failed == 1


def test_old_parts_go_with_their_checkpoint_and_strays_with_the_next_one(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    save(tmp_path, 4, ranks=(1,))  # rank 0 was killed before it had written
    save(tmp_path, 5)
    assert files(tmp_path) == ["step-3.pt", "step-3.rank-1.pt", "step-5.pt", "step-5.rank-1.pt"]


def test_a_part_that_comes_before_the_checkpoint_ahead_of_it_is_whole_stays(tmp_path: Path) -> None:
    """A rank may be a checkpoint ahead of rank 0's writer."""
    save(tmp_path, 4, ranks=(1,))
    save(tmp_path, 3)
    assert files(tmp_path) == ["step-3.pt", "step-3.rank-1.pt", "step-4.rank-1.pt"]


def test_parts_that_never_became_a_checkpoint_are_removed_before_a_run_goes_on(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 4, ranks=(1,))
    (tmp_path / "checkpoints" / ".step-5.rank-1.pt.4711").write_bytes(b"half")
    state = checkpoints(tmp_path, 0).load()
    assert state is not None
    assert state["step"] == 3
    assert files(tmp_path) == ["step-3.pt", "step-3.rank-1.pt"]


def test_what_was_saved_behind_the_step_that_a_run_goes_on_from_is_forgotten(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 5)
    checkpoints(tmp_path, 1).forget_after(3)
    assert len(files(tmp_path)) == 4, "rank 0 does it for all"
    checkpoints(tmp_path, 0).forget_after(3)
    assert files(tmp_path) == ["step-3.pt", "step-3.rank-1.pt"]


@pytest.mark.parametrize("fault", ["missing", "cut", "of an earlier life"])
def test_a_checkpoint_with_a_part_that_is_of_no_use_is_passed_over(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 3)
    save(tmp_path, 4, generation=2)
    part = tmp_path / "checkpoints" / "step-4.rank-1.pt"
    if fault == "missing":
        part.unlink()
    elif fault == "cut":
        part.write_bytes(part.read_bytes()[:-100])
    else:
        save(tmp_path, 4, ranks=(1,), generation=1)
    with caplog.at_level(logging.WARNING):
        state = checkpoints(tmp_path, 1).load()
    assert state is not None
    assert state["step"] == 3
    assert "step-4.pt is damaged" in caplog.text


def test_damage_that_one_rank_sees_counts_for_all(tmp_path: Path) -> None:
    class Told(Alone):
        def gather(self, value: Any) -> list[Any]:
            return [value, "wrong checksum"]

    save(tmp_path, 3)
    with pytest.raises(ConfigError, match="all 1 checkpoints"):
        Checkpoints(tmp_path, CheckpointOptions(), Told(0, 2)).load()


def test_one_rank_waits_for_nobody(tmp_path: Path) -> None:
    rank_files.await_others(tmp_path, 3, ALONE.size, threading.Event())
