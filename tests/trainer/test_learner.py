"""What learns goes on from its state: parameters, optimiser, rate, generators."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.config import TrainerOptions
from trainer import learner
from trainer.batch import Batch
from trainer.learner import Learner
from trainer.state import copied
from trainer.step import StepResult, train_step


def make(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Learner:
    """A learner whose model draws from every generator; a step that would be captured is made as it comes."""

    def make_step(model: Any, optimizer: Any, schedule: Any, options: Any, *_: Any) -> Any:
        return lambda batch: train_step(model, optimizer, schedule, batch, options)

    monkeypatch.setattr(learner, "make_step", make_step)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    return Learner(TrainerOptions.model_validate({"steps": 9, "device": "cpu", **options}), model)


def step(one: Learner, number: int) -> StepResult:
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(6, 2, generator=generator) * (1 + random.random()) + np.random.rand()
    return one.step(Batch(inputs, torch.arange(6) % 3, torch.ones(6), np.arange(6), number, "plain"))


@pytest.mark.parametrize(("optimizer", "capture"), [("sgd", False), ("sgd", True), ("adam", False), ("adamw", False)])
def test_a_restored_learner_goes_on_bit_for_bit(optimizer: str, capture: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"optimizer": optimizer, "step": {"capture": capture}}
    whole = make(monkeypatch, **options)
    losses = [step(whole, number).losses for number in range(5)]
    state = copied(whole.state_dict())
    losses += [step(whole, number).losses for number in range(5, 9)]
    again = make(monkeypatch, **options)
    rate = again._optimizer.param_groups[0]["lr"]
    again.load_state_dict(state)
    assert not isinstance(rate, torch.Tensor) or again._optimizer.param_groups[0]["lr"] is rate, "graphs read it there"
    for number in range(5, 9):
        assert torch.equal(step(again, number).losses, losses[number])
    assert again.lr == whole.lr
    assert all(map(torch.equal, again.model.state_dict().values(), whole.model.state_dict().values()))


def test_a_rank_of_which_nothing_was_saved_does_not_draw_what_rank_0_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(monkeypatch)
    step(first, 0)
    state = copied(first.state_dict())
    rank_0, rank_1 = make(monkeypatch, seed=0), make(monkeypatch, seed=0)
    torch.manual_seed(1)  # as of rank 1
    rank_1.load_state_dict(state, draws_on=False)
    own = torch.rand(3)
    rank_0.load_state_dict(state)
    assert not torch.equal(torch.rand(3), own)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), own)
