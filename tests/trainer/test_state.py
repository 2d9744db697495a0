"""A loop of people's own, saved between two steps and built anew from that, goes on as if nothing had happened."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import TrainerOptions
from common.data.fingerprint import data_fingerprint
from common.data.sources import open_source
from common.models import build_model
from common.selection.registry import METHODS
from trainer.batch import Batch
from trainer.learner import Learner
from trainer.ranks.group import ALONE, Group
from trainer.stream import SelectedBatches

STEPS, AT = 24, 11
OPTIONS: dict[str, Any] = {
    "data": "synthetic", "synthetic": {"num_samples": 120}, "model": "small", "mode": "fresh", "steps": STEPS,
    "batch_size": 8, "candidates": 24, "device": "cpu", "threads": 1,
    "selection": {"warmup_fraction": 0.1, "anneal_fraction": 0.2},
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "gradient-norm": {"selection": {"tau_threshold": 1.1}},
    "uniform": {"mode": "uniform"},
}


class Loop:
    """One life of a training loop."""

    def __init__(self, options: TrainerOptions, group: Group = ALONE) -> None:
        self.source = open_source(options)
        self.model = build_model(options.model, self.source.sample, seed=options.seed)
        self.batches = SelectedBatches(options, self.source, self.model, generation=1, group=group)
        self.learner = Learner(options, self.model)

    def steps(self) -> Iterator[Batch]:
        with self.batches:
            for batch in self.batches:
                self.batches.step(self.learner.step(batch).losses)
                yield batch

    def saved(self) -> bytes:
        file = io.BytesIO()
        torch.save({"learner": self.learner.state_dict(), "batches": self.batches.state_dict()}, file)
        return file.getvalue()

    def restored(self, saved: bytes) -> "Loop":
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.learner.load_state_dict(state["learner"])
        self.batches.load_state_dict(state["batches"])
        return self


def content(batch: Batch) -> tuple[Any, ...]:
    return (batch.step, batch.origin, batch.ids.tolist(), batch.weights.tolist(), batch.inputs.tolist())


def assert_goes_on(options: TrainerOptions) -> None:
    courses: list[tuple[Any, ...]] = []
    saved = b""
    whole = Loop(options)
    for batch in whole.steps():
        courses.append(content(batch))
        if whole.batches.completed == AT:
            saved = whole.saved()
    assert len(courses) == STEPS
    again = Loop(options).restored(saved)
    assert [content(batch) for batch in again.steps()] == courses[AT:]
    models = [loop.model.state_dict() for loop in (whole, again)]
    assert [key for key, value in models[0].items() if not torch.equal(value, models[1][key])] == []
    timeless = ("figures", "num_scored")
    tallies = [loop.batches.tally.state_dict() for loop in (whole, again)]
    assert [tallies[0][name] for name in timeless] == [tallies[1][name] for name in timeless]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_from_a_saved_state(method: str, tmp_path: Path) -> None:
    settings = {**OPTIONS, "method": method, **SETTINGS.get(method, {})}
    if method == "rho-loss":
        settings["irreducible"] = irreducible(tmp_path, settings)
    assert_goes_on(TrainerOptions.model_validate(settings))


def irreducible(folder: Path, settings: dict[str, Any]) -> Path:
    """A file of losses for these data."""
    options = TrainerOptions.model_validate({**settings, "method": "loss"})
    source, path = open_source(options), folder / "irreducible.pt"
    losses = torch.linspace(0, 1, source.sample.num_samples)
    data = data_fingerprint(source, options.augment)["data"]
    torch.save({"losses": losses, "data": data, "model": "small", "num_samples": len(losses), "accuracy": 0.5}, path)
    return path


def test_a_state_is_of_a_moment_between_two_steps() -> None:
    loop = Loop(TrainerOptions.model_validate(OPTIONS))
    with loop.batches:
        next(iter(loop.batches))
        with pytest.raises(RuntimeError, match="between two steps"):
            loop.batches.state_dict()
