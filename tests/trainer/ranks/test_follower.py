"""What a run is to a rank other than rank 0."""

import logging
from pathlib import Path

import pytest

from common.config import TrainerOptions
from common.errors import ConfigError
from common.run_folder import discard_folder, next_generation, of_rank
from tests.trainer.ranks.groups import on_every_rank
from trainer.ranks import follower
from trainer.ranks.follower import Follower, joint_run
from trainer.ranks.group import EndedElsewhere, Group


def options(folder: Path, **more: object) -> TrainerOptions:
    return TrainerOptions.model_validate({"out": folder, "log": {"tensorboard": False}, **more})


def test_it_has_a_log_of_its_own_and_records_nothing(tmp_path: Path) -> None:
    generation = next_generation(tmp_path)
    with Follower(options(tmp_path), 2, tmp_path, generation) as run:
        run.resume(10)
        run.log({"loss/selected": 0.5})
        logging.getLogger("trainer.somewhere").info("hello")
        assert (run.step, run.due(5), run.due(0)) == (10, True, False)
    assert {path.name for path in tmp_path.iterdir()} == {"generation", "trainer-rank-2.log"}
    assert "INFO rank 2 trainer.somewhere: hello" in (tmp_path / "trainer-rank-2.log").read_text()


def test_a_folder_that_a_rank_does_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host's, or one of that name which is not the run's."""
    monkeypatch.setattr(follower, "SEEN_WITHIN_S", 0.0)
    for _ in range(2):
        with (
            pytest.raises(ConfigError, match="rank 1 does not see what rank 0 wrote"),
            Follower(options(tmp_path), 1, tmp_path, 7),
        ):
            pass
        next_generation(tmp_path)


def test_all_ranks_are_of_rank_0s_folder_and_generation(tmp_path: Path) -> None:
    def do(group: Group) -> tuple[Path, int, int]:
        with joint_run(options(tmp_path / f"of-{group.rank}"), group) as run:
            return run.folder, run.generation, run.rank

    assert on_every_rank(2, do) == [(tmp_path / "of-0", 1, 0), (tmp_path / "of-0", 1, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["of-0"]


def test_a_folder_that_rank_0_cannot_use_ends_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")

    def do(group: Group) -> None:
        with joint_run(options(tmp_path), group):
            raise AssertionError("nobody comes here")

    first, second = on_every_rank(2, do)
    assert isinstance(first, ConfigError)
    assert isinstance(second, EndedElsewhere)


def test_the_folder_of_ranks_that_never_trained_is_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / of_rank("trainer.log", 1)).touch()
    (folder / of_rank("trace.jsonl", 1)).touch()
    discard_folder(folder)
    assert not folder.exists()


def test_what_ranks_write_beside_rank_0_bears_their_number() -> None:
    assert [of_rank("trace.jsonl", rank) for rank in (0, 1)] == ["trace.jsonl", "trace-rank-1.jsonl"]
