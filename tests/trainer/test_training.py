"""Runs in this process that are stopped, or whose checkpoints suffer, and are resumed."""

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.config import TrainerOptions
from common.data.sources import open_source
from common.errors import ConfigError
from common.models import build_model
from common.run import Run
from common.run_folder import held_folder
from tests.trainer.runs import OPTIONS, summary, train
from trainer import record, stopping
from trainer.evaluate import evaluate
from trainer.ranks.ballot import Agreed
from trainer.stream import SelectedBatches
from trainer.training import Training

Stop = Callable[[int], None]

pytestmark = pytest.mark.usefixtures("own_handlers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder) == 0
    return folder


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Has SIGTERM come during the evaluation after a step."""

    def arrange(step: int) -> None:
        calls = []

        def evaluate_and_stop(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if 10 * len(calls) == step:
                signal.raise_signal(signal.SIGTERM)
            return evaluate(*args, **kwargs)

        monkeypatch.setattr(record, "evaluate", evaluate_and_stop)

    return arrange


def assert_same_run(folder: Path, whole: Path) -> None:
    assert (folder / "trace.jsonl").read_text() == (whole / "trace.jsonl").read_text()
    models = [torch.load(path / "model.pt") for path in (folder, whole)]
    assert [key for key, value in models[0].items() if not torch.equal(value, models[1][key])] == []
    steps = [
        [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (folder, whole)
    ]
    assert steps[0] == steps[1]
    figures = ("steps", "samples_trained", "samples_scored", "accuracy", "steps_by_origin", "candidates_offered")
    assert [summary(folder)[name] for name in figures] == [summary(whole)[name] for name in figures]


def test_a_run_that_sigterm_stopped_has_saved_its_last_step_and_is_resumed_to_the_same_end(
    tmp_path: Path, whole: Path, stop_at: Stop
) -> None:
    stop_at(20)
    assert train(tmp_path, checkpoint={"every": 0}) == 128 + signal.SIGTERM
    stopped = summary(tmp_path)
    assert (stopped["stopped_by"], stopped["steps"], stopped["checkpoints"]) == (
        "SIGTERM",
        20,
        {"saved": 1, "failed": 0},
    )
    assert stopped["accuracy"] > 0.25
    assert train(tmp_path, resume=True) == 0
    assert summary(tmp_path)["resumed_at_step"] == 20
    assert "stopped_by" not in summary(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_signal_after_the_last_step_finds_a_run_that_has_ended(tmp_path: Path, whole: Path, stop_at: Stop) -> None:
    stop_at(OPTIONS["steps"])
    assert train(tmp_path) == 0
    assert "stopped_by" not in summary(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_stopped_run_does_not_wait_for_a_long_evaluation(
    tmp_path: Path, stop_at: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "EVALUATION_S", 0.0)
    stop_at(20)
    train(tmp_path)
    stopped = summary(tmp_path)
    assert stopped["steps"] == 20
    assert stopped["evaluated_at_step"] == 10, "the last one that was over"
    assert (tmp_path / "checkpoints" / "step-20.pt").exists()


def test_with_a_damaged_newest_checkpoint_a_run_goes_on_from_the_one_before(
    tmp_path: Path, whole: Path, stop_at: Stop, caplog: pytest.LogCaptureFixture
) -> None:
    stop_at(20)
    train(tmp_path)
    newest = tmp_path / "checkpoints" / "step-20.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path, resume=True) == 0
    assert "step-20.pt is damaged" in caplog.text
    assert summary(tmp_path)["resumed_at_step"] == 15
    assert_same_run(tmp_path, whole)


def test_without_a_checkpoint_a_resumed_run_begins_anew_and_so_does_one_without_a_folder(
    tmp_path: Path, whole: Path, stop_at: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    stop_at(20)
    train(folder)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    assert train(folder, resume=True) == 0
    assert summary(folder)["resumed_at_step"] == 0
    assert_same_run(folder, whole)
    assert train(tmp_path / "new", resume=True) == 0
    assert_same_run(tmp_path / "new", whole)


def test_what_a_rank_that_is_no_more_did_after_the_step_gone_on_from_is_taken_out(
    tmp_path: Path, stop_at: Stop
) -> None:
    stop_at(20)
    train(tmp_path)
    gone = [tmp_path / f"trace-rank-{rank}.jsonl" for rank in (1, 2)]
    for path in gone:
        path.write_text("".join(f'{{"step": {step}}}\n' for step in range(22)))
    assert train(tmp_path, resume=True) == 0
    assert [len(path.read_text().splitlines()) for path in gone] == [20, 20]


def test_a_run_that_has_ended_is_not_resumed(whole: Path) -> None:
    with pytest.raises(ConfigError, match="has ended"):
        train(whole, resume=True)


def test_a_run_is_resumed_with_its_own_options_only(tmp_path: Path, stop_at: Stop) -> None:
    stop_at(20)
    train(tmp_path)
    with pytest.raises(ConfigError, match=r"--lr was 0.1 .* and is 0.05 now; give the same options"):
        train(tmp_path, resume=True, lr=0.05)
    with pytest.raises(ConfigError, match=r"--synthetic.num-samples was 200 .* and is 100 now"):
        train(tmp_path, resume=True, synthetic={"num_samples": 100})
    with pytest.raises(ConfigError, match=r"--log.ledger was True"):
        train(tmp_path, resume=True, log={"ledger": False})
    changed = {"threads": 2, "log": {"log_every": 5, "tensorboard": False}, "checkpoint": {"keep": 1}}
    assert train(tmp_path, resume=True, **changed) == 0


def test_a_checkpoint_of_another_model_is_refused_and_the_folder_kept(tmp_path: Path, stop_at: Stop) -> None:
    stop_at(20)
    train(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        state = torch.load(path)
        del state["learner"]["model"]["head.bias"]
        torch.save(state, path)
    with pytest.raises(ConfigError, match=r"the checkpoint of step 20 is of another model.*head\.bias"):
        train(tmp_path, resume=True)
    assert (tmp_path / "trace.jsonl").exists()
    assert summary(tmp_path)["steps"] == 20, "nothing is taken out of a folder that is not gone on with"


def test_a_folder_of_something_else_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="holds files already"):
        train(tmp_path, resume=True)


def test_a_run_whose_trainer_is_still_at_work_is_not_resumed(tmp_path: Path, stop_at: Stop) -> None:
    stop_at(20)
    train(tmp_path)
    with held_folder(tmp_path), pytest.raises(ConfigError, match="a trainer is still at work"):
        train(tmp_path, resume=True)
    assert train(tmp_path, resume=True) == 0


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save = torch.save

    def full(state: Any, file: Any) -> None:
        if isinstance(state, dict) and state.get("step") == 15:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    assert train(tmp_path) == 0
    assert "ALARM: checkpoint of step 15 was not written" in caplog.text
    assert summary(tmp_path)["checkpoints"] == {"saved": 7, "failed": 1}
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert "step-10.pt" in names
    assert "step-15.pt" not in names
    assert_same_run(tmp_path, whole)


def test_a_vote_for_a_checkpoint_that_was_cast_before_the_last_one_asks_for_no_other(tmp_path: Path) -> None:
    """On a GPU votes are read two steps later, and until then rank 0 goes on voting."""
    options = TrainerOptions.model_validate({**OPTIONS, "out": tmp_path, "checkpoint": {"every": 0, "every_s": 1e6}})
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    with Run(options) as run:
        training = Training(run, SelectedBatches(options, source, model), source, model)
        votes = SimpleNamespace(agreed=Agreed())
        training.learner.ballot = votes  # type: ignore[assignment]
        due = []
        with training:
            for run.step in range(1, 13):  # completed, and read is what was voted three completed steps before
                votes.agreed = Agreed(run.step - 3, save=3 <= run.step - 3 < 6)
                if training.is_save_due():
                    due.append(run.step)
                    training._asked_at = run.step
    assert due == [6], "votes at 3, 4 and 5 are for one"
