"""Every wait of a trainer ends: whatever hangs is named in the log, with the stacks, and the run goes on or ends."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.config import TrainerOptions, load_options
from common.config.training import CheckpointOptions
from common.data.source import Source
from common.data.sources import open_source
from common.errors import PeerTimeout
from common.models import build_model
from trainer import attendance, checkpoint, feeder, waits
from trainer.checkpoint import Checkpoints
from trainer.feeder import Feeder
from trainer.publisher import Publisher
from trainer.stream import SelectedBatches

WITHIN_S = 20.0
STACKS = "\nwhat the threads do:\n"


@pytest.fixture
def hang() -> Iterator[Callable[..., Any]]:
    """What never returns, until the test is over; `hang.entered` tells that it is called."""
    over, entered = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        entered.set()
        over.wait(WITHIN_S)

    hang.entered = entered  # type: ignore[attr-defined]
    yield hang
    over.set()
    for thread in threading.enumerate():
        if thread.name in ("feeder", "checkpoint"):
            thread.join(WITHIN_S)


def test_a_feeder_that_hangs_is_left_behind_and_its_stack_is_in_the_log(
    hang: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeder, "END_S", 0.02)
    fed: Feeder[int] = Feeder(hang, 0, 10)
    fed.start()
    assert hang.entered.wait(WITHIN_S)
    fed.stop()
    assert "s for the feeder's thread to end; it reads data: does the storage answer?" + STACKS in caplog.text
    assert any(line.startswith("  feeder: ") and " hang < " in line for line in caplog.text.splitlines())


def test_a_training_loop_that_does_not_come_for_its_batch_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeder, "IDLE_S", 0.0)
    monkeypatch.setattr(feeder, "POLL_S", 0.001)
    fed: Feeder[int] = Feeder(lambda step: step, 0, 10)
    looked = threading.Event()
    looks = 0

    def look(timeout_s: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            looked.set()

    wait = fed._changed.wait
    monkeypatch.setattr(fed._changed, "wait", lambda timeout_s: (look(timeout_s), wait(timeout_s)))
    fed.start()
    assert looked.wait(WITHIN_S)
    fed.stop()
    reports = [message for message in caplog.messages if "for the training loop to come for a batch" in message]
    assert len(reports) == 1
    assert STACKS in reports[0]


def test_a_disk_that_hangs_costs_checkpoints_and_not_the_run(
    hang: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint, "WRITE_S", 0.02)
    kept = Checkpoints(tmp_path, CheckpointOptions())
    monkeypatch.setattr(kept, "_write", hang)
    kept.save(1, {})
    for step in (2, 3):
        kept.save(step, {})
    assert not kept.close()
    assert kept.num_failed == 2
    assert caplog.text.count(STACKS) == 1
    assert "ALARM: checkpoint of step 3 was not written: waited " in caplog.text
    assert "for the checkpoint of step 1 to be written; is the disk stuck?" in caplog.text


def test_an_exact_run_that_finds_no_free_buffer_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(nn.Linear(2, 2), None, 1, num_slots=1)
    slot = publisher.push(0)
    assert slot is not None
    publisher.announce(slot)
    assert publisher.push(1, wait_s=0.01) is None
    assert "for a free buffer for the weights; scorers fetch the versions that fill them" + STACKS in caplog.text
    caplog.clear()
    assert publisher.push(2) is None  # no wait, no report
    assert caplog.text == ""


class Stuck:
    """A split whose storage does not answer any more, once it is told so."""

    hangs = False

    def __init__(self, split: Any, hang: Callable[..., Any]) -> None:
        self._split = split
        self._hang = hang

    def __len__(self) -> int:
        return len(self._split)

    def fetch(self, ids: torch.Tensor) -> Any:
        if self.hangs:
            self._hang()
            raise OSError("gone")
        return self._split.fetch(ids)

    def targets(self, ids: torch.Tensor) -> torch.Tensor:
        return self._split.targets(ids)


def test_a_step_whose_batch_never_comes_ends_the_run(hang: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "BATCH_S", 0.05)
    monkeypatch.setattr(feeder, "POLL_S", 0.01)
    monkeypatch.setattr(feeder, "END_S", 0.02)
    options = load_options(TrainerOptions, ["--data", "digits", "--mode", "uniform"])
    whole = open_source(options)
    train = Stuck(whole.train, hang)
    source = Source("stuck", train, whole.held_out, 10)
    batches = SelectedBatches(options, source, build_model("small", source.sample, seed=0))
    train.hangs = True
    with pytest.raises(PeerTimeout, match=r"step 0 waited 0 s for its batch; .* does the storage answer\?"), batches:
        next(iter(batches))


def test_first_scores_are_waited_for_until_somebody_ends_that_and_no_longer() -> None:
    """As a rank does that was asked to end: it says so to the others with its first step."""
    flags = ("--data", "synthetic", "--device", "cpu", "--service.start-wait-s", "60")
    options = load_options(TrainerOptions, [*flags])
    source = open_source(options)
    batches = SelectedBatches(options, source, build_model(options.model, source.sample, seed=0))
    with batches:
        assert batches.watched.link is not None
        batches.watched.link.service.attendance.hurry()
        assert next(iter(batches)).origin == "plain"
    assert batches.tally.start_wait_s < WITHIN_S


def test_a_rank_that_was_asked_to_end_does_not_wait_for_scores_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "HURRIED_S", 0.0)
    monkeypatch.setattr(feeder, "POLL_S", 0.01)
    flags = ("--data", "synthetic", "--device", "cpu", "--fallback", "wait", "--selection.warmup-fraction", "0")
    options = load_options(TrainerOptions, [*flags])
    source = open_source(options)
    batches = SelectedBatches(options, source, build_model(options.model, source.sample, seed=0))
    assert batches.watched.link is not None
    batches.watched.link.service.attendance.hurry()
    with pytest.raises(PeerTimeout, match=r"step 0 waited 0 s .* asked to end; ranks save together"), batches:
        next(iter(batches))
