"""The run folder: who may use it, what it holds, and that its files are whole."""

import errno
import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from common.config import RunOptions, TrainerOptions, load_options, write_toml
from common.errors import ConfigError, RankLost
from common.run import Run, Timing
from common.run_folder import (
    claim_folder,
    default_out,
    next_generation,
    write_options,
)

QUIET = {"tensorboard": False}


def options(out: Path | None, **more: object) -> TrainerOptions:
    return TrainerOptions.model_validate({"out": out, "log": QUIET, **more})


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_options_environment_metrics_log_and_summary(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "mine"
    with Run(options(folder, steps=7)) as run:
        run.step = 1
        run.log({"loss/selected": torch.tensor(0.5), "loss/uniform": float("nan")}, accuracy=1)
        run.write_summary({"accuracy": 0.5, "staleness_mean": float("inf"), "steps": 1})
    assert tomllib.loads((folder / "options.toml").read_text())["out"] == str(folder)
    (figures,) = lines(folder / "metrics.jsonl")
    assert figures.pop("wall_s") >= 0  # type: ignore[operator]
    assert figures == {"step": 1, "loss/selected": 0.5, "loss/uniform": None, "accuracy": 1}
    assert json.loads((folder / "summary.json").read_text()) == {"accuracy": 0.5, "staleness_mean": None, "steps": 1}
    assert "generation 1" in (folder / "trainer.log").read_text()
    assert (folder / "generation").read_text() == "1\n"


def test_the_environment_is_described_without_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "swordfish")
    with Run(options(tmp_path)) as run:
        text = (run.folder / "environment.json").read_text()
    assert "swordfish" not in text
    assert json.loads(text)["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert json.loads(text)["cpu_count"] == os.cpu_count()


def test_a_folder_in_use_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    with Run(options(tmp_path)):
        pass
    with pytest.raises(ConfigError, match=r"holds files already \(metrics.jsonl\); choose another.*remove.*rm -r"):
        Run(options(tmp_path)).__enter__()


def test_a_folder_with_files_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        claim_folder(options(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out: cannot use .*file as a folder"):
        claim_folder(options(tmp_path / "file"))


def test_a_disk_that_is_full_at_the_start_is_named_and_no_folder_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("common.run.replace_file", full)
    with pytest.raises(ConfigError, match=r"--out: cannot write to .*new: No space left on device; free space"):
        Run(options(tmp_path / "new")).__enter__()
    assert list(tmp_path.iterdir()) == []


def supervised(folder: Path) -> TrainerOptions:
    """What `run` does before it starts a trainer, and the options with which that trainer then starts."""
    run = RunOptions.model_validate({"out": folder, "log": QUIET})
    folder = claim_folder(run)
    write_options(folder, run)
    (folder / "scorer-0.log").write_text("ready\n")
    path = folder / "options-trainer.toml"
    write_toml(path, run.for_trainer(listen=None, out=folder).dump())
    return load_options(TrainerOptions, ["--config", str(path)])


def test_the_trainer_of_a_run_takes_over_the_folder_that_run_made(tmp_path: Path) -> None:
    with Run(supervised(tmp_path / "mine")) as run:
        assert run.generation == 1
    assert "scorers" in tomllib.loads((tmp_path / "mine" / "options.toml").read_text())


def test_the_trainer_of_a_run_takes_over_nothing_that_a_trainer_used(tmp_path: Path) -> None:
    mine = supervised(tmp_path / "mine")
    with Run(mine):
        pass
    with pytest.raises(ConfigError, match="holds files already"):
        claim_folder(mine)


def test_folders_by_default_are_new_ones_even_within_one_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {claim_folder(options(None, data="my.module:Data")) for _ in range(3)}
    assert len(folders) == 3
    assert all(
        folder.parent == tmp_path / "runs" and folder.name.startswith("my.module-Data-mms-") for folder in folders
    )
    assert default_out(options(None, mode="uniform")).name.startswith("digits-uniform-2")


def test_each_start_raises_the_generation(tmp_path: Path) -> None:
    assert [next_generation(tmp_path) for _ in range(3)] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["generation"]
    (tmp_path / "generation").write_text("many")
    with pytest.raises(ConfigError, match="must hold a number, got 'many'"):
        next_generation(tmp_path)


def test_curves_are_written_under_the_tags_of_the_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Run(TrainerOptions(out=tmp_path)) as run:
        for run.step in (1, 2):
            run.log({"loss/selected": run.step / 2, "loss/uniform": float("nan"), "fallbacks": None})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss/selected"]
    assert [(event.step, event.value) for event in events.Scalars("loss/selected")] == [(1, 0.5), (2, 1.0)]


def test_a_resumed_run_replaces_what_was_recorded_after_the_step_that_it_goes_on_from(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Run(TrainerOptions(out=tmp_path)) as run:
        for run.step in (1, 2, 3, 4):
            run.log(loss=run.step)
        run.write_summary({"stopped_by": "SIGTERM"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # at which a killed process stopped writing
    with Run(TrainerOptions(out=tmp_path, resume=True)) as run:
        run.resume(2)
        assert run.generation == 2
        assert not (tmp_path / "summary.json").exists()
        for run.step in (3, 4):
            run.log(loss=-run.step)
    assert [line["loss"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2, -3, -4]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == [1, 2, -3, -4]
    assert "resume = false" in (tmp_path / "options.toml").read_text(), "the file repeats the run from its beginning"


def test_a_resumed_run_that_fails_at_its_start_keeps_its_folder(tmp_path: Path) -> None:
    with Run(options(tmp_path)) as run:
        run.step = 7
        run.log(loss=1.0)
    with pytest.raises(ConfigError), Run(options(tmp_path, resume=True)):
        raise ConfigError("the endpoint is taken")
    assert lines(tmp_path / "metrics.jsonl")


def test_a_run_that_lost_a_rank_before_its_first_step_keeps_the_logs_that_say_why(tmp_path: Path) -> None:
    with pytest.raises(RankLost), Run(options(tmp_path)):
        raise RankLost("rank 0 of 2: another rank has ended, see its log")
    assert "see its log" in (tmp_path / "trainer.log").read_text()


def test_times_of_a_resumed_run_go_on_from_those_of_its_earlier_life() -> None:
    timing = Timing()
    seconds = timing.seconds
    timing.restore(100.0, {"step": 80.0})
    with timing("step"):
        pass
    assert timing.wall_s >= 100
    assert seconds["step"] >= 80, "whoever holds the figures sees them"


def test_metrics_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with Run(options(tmp_path)) as run:
        run.log(loss=1.0)
        assert lines(tmp_path / "metrics.jsonl")[0]["loss"] == 1.0


def test_due_counts_completed_steps(tmp_path: Path) -> None:
    run = Run(options(tmp_path))
    due = []
    for run.step in range(7):
        due.append(run.due(3))
    assert due == [False, False, False, True, False, False, True]
    assert not run.due(0)


def test_shares_of_phases_are_fractions_of_the_time_since_the_start() -> None:
    timing = Timing()
    with timing("wait"), pytest.raises(ZeroDivisionError):
        _ = 1 / 0
    for _ in range(3):
        with timing("step"):
            sum(range(1000))
    shares = timing.shares()
    assert set(shares) == {"wait_fraction", "step_fraction"}
    assert 0 < sum(shares.values()) <= 1
    assert timing.seconds["step"] > 0


def test_what_ended_a_run_stands_in_its_log_and_handlers_are_taken_back(tmp_path: Path) -> None:
    before = list(logging.getLogger("trainer").handlers)

    def train() -> None:
        with Run(options(tmp_path)) as run:
            run.step = 3
            logging.getLogger("trainer.loop").info("step 3 | loss 0.5")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    text = (tmp_path / "trainer.log").read_text()
    assert "step 3 | loss 0.5" in text
    assert "ended at step 3 by ZeroDivisionError" in text
    assert logging.getLogger("trainer").handlers == before


@pytest.mark.parametrize("redirected", [True, False])
def test_a_log_line_is_written_once_to_a_stderr_that_is_the_log(tmp_path: Path, redirected: bool) -> None:
    code = "import sys; from common.run import logging_to, logger; from pathlib import Path\n"
    code += "with logging_to(Path(sys.argv[1])): logger.info('hello')"
    log = tmp_path / "trainer.log"
    with (log if redirected else tmp_path / "stderr").open("a") as stderr:
        subprocess.run([sys.executable, "-c", code, str(log)], stderr=stderr, timeout=60, check=True)
    assert log.read_text().count("hello") == 1
    assert redirected or (tmp_path / "stderr").read_text().count("hello") == 1
