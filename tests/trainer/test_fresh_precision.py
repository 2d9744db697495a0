"""Fresh mode in a low precision: the form follows the weights of each step, and the account names what was computed."""

import pytest
import torch
from torch import nn

from common.config import TrainerOptions
from common.data.source import Source, TensorSplit
from trainer.optimizers import build_optimizer, build_schedule
from trainer.step import train_step
from trainer.stream import SelectedBatches

STEPS = 6
DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.randint(256, (64, 1, 8, 8), generator=DRAW, dtype=torch.uint8)
SOURCE = Source("images", TensorSplit(IMAGES, torch.randint(3, (64,), generator=DRAW)), None, 3)


def trained(precision: str) -> tuple[list[list[int]], dict[str, int], SelectedBatches]:
    """The ids of each step's batch, the operations that scored by precision, and what gave the batches."""
    ends = {"warmup_fraction": 0.0, "anneal_fraction": 0.0}
    given = {"mode": "fresh", "steps": STEPS, "batch_size": 8, "candidates": 64, "device": "cpu", "lr": 0.5}
    options = TrainerOptions.model_validate({**given, "selection": ends, "precision": precision})
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    optimizer = build_optimizer(options, model.parameters())
    schedule = build_schedule(optimizer, options)
    ids = []
    with SelectedBatches(options, SOURCE, model) as batches:
        for batch in batches:
            ids.append(sorted(batch.ids.tolist()))
            batches.step(train_step(model, optimizer, schedule, batch, options).losses)
        return ids, batches.summary()["flops"]["scoring"], batches


def test_bf16_selects_nearly_what_float32_selects_and_follows_each_step_of_training() -> None:
    exact, _, _ = trained("float32")
    low, scoring, batches = trained("bf16")
    shared = [len(set(one) & set(other)) / len(one) for one, other in zip(exact, low, strict=True)]
    assert shared[0] >= 0.9
    assert sum(shared) / len(shared) >= 0.7  # of what is trained a little differently
    assert list(scoring) == ["bf16"]
    form = batches._fresh._form  # type: ignore[union-attr]
    assert form is not None
    assert form.num_refreshed == STEPS


@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_what_was_computed_is_accounted_by_the_precision_that_it_was_computed_in(precision: str) -> None:
    _, scoring, batches = trained(precision)
    assert batches._fresh is not None
    assert list(scoring) == [batches._fresh.precision]
    assert precision == "auto" or list(scoring) == ["int8"]
    assert "auto" not in scoring
