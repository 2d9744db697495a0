"""Optimisers against the formulas, schedules step by step."""

import logging
import math
from typing import Any

import pytest
import torch
from torch import nn

from common.config.trainer import TrainerOptions
from trainer.optimizers import build_optimizer, build_schedule, clip_gradients


def rates(steps: int, num: int | None = None, **schedule: Any) -> list[float]:
    """The rate that each of `num` steps trains with, and the one after them."""
    options = TrainerOptions(steps=steps, lr=0.5, schedule=schedule)
    optimizer = build_optimizer(options, [nn.Parameter(torch.zeros(1))])
    scheduler = build_schedule(optimizer, options)
    seen = []
    for _ in range(num or steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_a_constant_rate_stays():
    assert rates(3, name="constant") == [0.5] * 4


def test_a_linear_rate_falls_evenly_and_is_0_after_the_last_step():
    assert rates(5, name="linear") == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0])


def test_a_cosine_rate_is_half_after_half_the_steps_and_0_after_the_last():
    seen = rates(10, name="cosine")
    assert seen == pytest.approx([0.25 * (1 + math.cos(math.pi * step / 10)) for step in range(11)])
    assert seen[5] == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_decayed_rate_stays_0_past_the_end(name: str):
    assert rates(4, num=9, name=name)[4:] == pytest.approx([0] * 6)


def test_a_stepped_rate_falls_once_the_milestone_s_steps_are_completed():
    assert rates(6, name="step", milestones=(2, 5), gamma=0.1) == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005]
    )


def test_milestones_as_shares_follow_the_number_of_steps():
    shares = {"name": "step", "milestone_shares": (0.5, 0.75), "gamma": 0.1}
    assert rates(4, **shares) == pytest.approx([0.5, 0.5, 0.05, 0.005, 0.005])
    assert rates(8, **shares) == pytest.approx([0.5] * 4 + [0.05] * 2 + [0.005] * 3)


def test_milestones_past_the_end_are_warned_of(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        rates(4, name="step", milestones=(2, 4))
    assert "ends at step 4, before the last of --schedule.milestones 2 4" in caplog.text


def test_a_restored_schedule_goes_on_where_it_was():
    options = TrainerOptions(steps=10, lr=1.0, schedule={"name": "linear"})

    def fresh() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = build_optimizer(options, [nn.Parameter(torch.zeros(1))])
        return optimizer, build_schedule(optimizer, options)

    optimizer, scheduler = fresh()
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    again, restored = fresh()
    again.load_state_dict(optimizer.state_dict())
    restored.load_state_dict(scheduler.state_dict())
    again.step()
    restored.step()
    assert again.param_groups[0]["lr"] == pytest.approx(0.5)


def stepped(num: int, **options: Any) -> float:
    """A parameter of 1 after `num` steps on the loss 2x."""
    parameter = nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(TrainerOptions(lr=0.1, **options), [parameter])
    for _ in range(num):
        parameter.grad = torch.full((1,), 2.0)
        optimizer.step()
    return parameter.item()


def test_sgd_follows_its_formula():
    velocity, x = 0.0, 1.0
    for _ in range(3):
        velocity = 0.9 * velocity + (2 + 0.01 * x)
        x -= 0.1 * velocity
    assert stepped(3, optimizer="sgd", optim={"momentum": 0.9, "weight_decay": 0.01}) == pytest.approx(x)


def test_nesterov_looks_ahead():
    optim = {"momentum": 0.9, "weight_decay": 0.0}
    assert stepped(1, optimizer="sgd", optim=optim | {"nesterov": True}) == pytest.approx(1 - 0.1 * (2 + 0.9 * 2))
    assert stepped(1, optimizer="sgd", optim=optim) == pytest.approx(1 - 0.1 * 2)


def test_adam_puts_weight_decay_in_the_gradient_and_adamw_beside_it():
    # Adam's first step is lr whatever the gradient's size, so decay in the gradient does not show.
    assert stepped(1, optimizer="adam", optim={"weight_decay": 0.5}) == pytest.approx(0.9)
    assert stepped(1, optimizer="adamw", optim={"weight_decay": 0.5}) == pytest.approx(1 - 0.1 * 0.5 - 0.1)


def test_frozen_parameters_are_left_out():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (group,) = build_optimizer(TrainerOptions(), model.parameters()).param_groups
    assert len(group["params"]) == 1
    assert group["params"][0] is model.weight


def test_clipping_scales_all_gradients_by_one_factor():
    params = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    params[0].grad, params[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    norm = clip_gradients(params, 1.0)
    assert norm is not None
    assert norm.item() == pytest.approx(5)
    assert [param.grad.item() for param in params if param.grad is not None] == pytest.approx([0.6, 0.8], rel=1e-4)


def test_without_a_limit_gradients_stay():
    param = nn.Parameter(torch.zeros(1))
    param.grad = torch.tensor([30.0])
    assert clip_gradients([param], None) is None
    assert param.grad.item() == 30


@pytest.mark.parametrize("nesterov", [False, True])
def test_parameters_that_not_every_batch_gives_a_gradient_train_as_with_plain_sgd(nesterov: bool):
    options = TrainerOptions(lr=0.1, optim={"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.01})
    one, other = ([nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(3))] for _ in range(2))
    ours = build_optimizer(options, one)
    plain = torch.optim.SGD(other, 0.1, 0.9, nesterov=nesterov, weight_decay=0.01, foreach=False)
    for step in range(6):
        for params, optimizer in ((one, ours), (other, plain)):
            optimizer.zero_grad(set_to_none=True)
            params[0].grad = torch.arange(5.0) + step
            if step % 3 == 1:
                params[1].grad = torch.arange(3.0) - step
            optimizer.step()
    torch.testing.assert_close(one, other)
