"""A whole run in this process: what its folder says of steps, samples, operations and time."""

import json
import logging
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import TrainerOptions
from common.data.source import Source
from common.data.sources import open_source
from common.models import build_model
from trainer import loop, record
from trainer.evaluate import evaluate
from trainer.lull import Lull
from trainer.pictures import write_pictures
from trainer.stream import SelectedBatches

EVALUATION_S = 0.2
MLP = 2 * (2 * 128 + 128 * 4)  # operations of a forward pass of `small` on points of the plane in 4 classes
OPTIONS = {
    "data": "synthetic", "model": "small", "mode": "fresh", "steps": 20, "batch_size": 8, "candidates": 24,
    "device": "cpu", "threads": 1, "selection": {"warmup_fraction": 0.1, "anneal_fraction": 0.2},
}  # fmt: skip


@dataclass(frozen=True)
class Finished:
    folder: Path
    rows: list[dict[str, Any]]
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """20 steps, of which 14 select 8 of 24; evaluated every 10 steps, each time for a while."""

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(EVALUATION_S)
        return evaluate(*args, **kwargs)

    folder = tmp_path_factory.mktemp("run")
    log = {"log_every": 5, "eval_every": 10, "tensorboard": False}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(record, "evaluate", slowly)
        assert loop.main(TrainerOptions.model_validate({**OPTIONS, "log": log, "out": folder})) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return Finished(folder, rows, json.loads((folder / "summary.json").read_text()))


def test_each_step_of_the_loop_says_when_its_backward_pass_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Lull] = []

    def begin(lull: Lull) -> None:
        begun.append(lull)

    monkeypatch.setattr(Lull, "begin", begin)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert loop.main(TrainerOptions.model_validate({**OPTIONS, "out": tmp_path / "run"})) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert len(begun) == 20


def test_every_row_carries_what_was_done_so_far(finished: Finished) -> None:
    for row in finished.rows:
        step = row["step"]
        num_selecting = min(max(step - 2, 0), 14)
        assert row["samples_trained"] == 8 * step
        assert row["samples_scored"] == 24 * num_selecting
        assert row["flops_scoring"] == 24 * num_selecting * MLP
        assert row["flops_training"] == 8 * step * (MLP + 2 * (2 * 128) + 2 * 2 * (128 * 4))
    assert [row["step"] for row in finished.rows] == [1, 5, 10, 10, 15, 20, 20]
    last, summary = finished.rows[-1], finished.summary
    assert summary["samples_trained"] == last["samples_trained"]
    assert summary["samples_scored"] == last["samples_scored"]
    assert summary["flops"]["training"] == last["flops_training"]
    assert summary["flops"]["scoring"] == {"float32": last["flops_scoring"]}
    assert summary["staleness_counts"] == {"0": 14 * 8}


def test_time_of_training_leaves_out_evaluations_and_what_came_before_the_first_step(finished: Finished) -> None:
    times = [row["train_s"] for row in finished.rows]
    assert times == sorted(times)
    before, evaluated = finished.rows[1], finished.rows[2]
    assert "accuracy/held_out" in evaluated
    passed = {name: evaluated[name] - before[name] for name in ("wall_s", "train_s")}
    assert passed["wall_s"] - passed["train_s"] >= EVALUATION_S - 0.002  # rounded to milliseconds
    assert 0 < finished.summary["train_s"] <= finished.summary["wall_s"] - 2 * EVALUATION_S


def test_the_profile_accounts_for_all_time_since_the_first_step(finished: Finished) -> None:
    trainer, row = finished.summary["profile"]["trainer"], finished.rows[-1]
    assert sum(trainer.values()) == pytest.approx(1)
    assert trainer["evaluate"] > trainer["step"] > 0
    assert trainer["score"] > 0
    assert row["time/evaluate_fraction"] == pytest.approx(trainer["evaluate"], abs=0.1)
    assert finished.summary["words"].splitlines()[-1].startswith("Time of the trainer: steps ")


def test_the_folder_has_pictures_of_what_was_selected(finished: Finished) -> None:
    gallery, boundary = (np.load(finished.folder / name) for name in ("gallery.npz", "boundary.npz"))
    assert gallery["class_seen"].sum() == 24 * 14
    assert gallery["class_selected"].sum() == 8 * 14
    assert gallery["class_sizes"].tolist() == [1024] * 4
    assert gallery["most_inputs"].shape == (16, 2)
    assert (boundary["step"].item(), boundary["selected_steps"].tolist()) == (20, [3, 16])
    assert 8 < boundary["selected"].sum() <= 8 * 14


class Broken:
    """A split that can no longer be read."""

    def __len__(self) -> int:
        return 4096

    def fetch(self, ids: Any) -> Any:
        raise OSError("the disk is gone")


def test_a_picture_that_cannot_be_made_does_not_cost_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = TrainerOptions.model_validate(OPTIONS)
    source: Source = open_source(options)
    model = build_model("small", source.sample, seed=0)
    broken = replace(source, train=Broken())
    broken.__dict__["sample"] = source.sample
    with caplog.at_level(logging.WARNING):
        write_pictures(tmp_path, SelectedBatches(options, source, model), broken, model)
    assert caplog.text.count("OSError: the disk is gone") == 2
    assert list(tmp_path.iterdir()) == []


def test_no_gallery_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    options = TrainerOptions.model_validate({**OPTIONS, "data": "digits", "log": {"gallery": False}})
    source = open_source(options)
    model = build_model("small", source.sample, seed=0)
    write_pictures(tmp_path, SelectedBatches(options, source, model), source, model)
    assert list(tmp_path.iterdir()) == []
