"""The training step in other forms: bf16, compiled, captured."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from common.config import TrainerOptions
from common.errors import ConfigError
from trainer.batch import Batch
from trainer.optimizers import build_optimizer, build_schedule
from trainer.step import train_step
from trainer.stepping import WARMUP_STEPS, CapturedStep, Step, make_step

B = 4


def make_model(device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).to(device)


def make_batch(number: int, size: int = B, device: str = "cpu") -> Batch:
    drawn = torch.Generator().manual_seed(number)
    inputs, targets = torch.randn(size, 6, generator=drawn), torch.randint(0, 3, (size,), generator=drawn)
    weights = torch.rand(size, generator=drawn)
    return Batch(inputs.to(device), targets.to(device), weights.to(device), targets.numpy(), number, "plain")


def stepping(model: nn.Module, **options: object) -> Step:
    given = TrainerOptions.model_validate({"batch_size": B, "steps": 20, **options})
    optimizer = build_optimizer(given, model.parameters(), capturable=given.step.capture)
    return make_step(model, optimizer, build_schedule(optimizer, given), given)


def parameters(model: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().float().cpu() for tensor in model.state_dict().values()])


def test_a_step_in_bf16_computes_nearly_the_same_and_keeps_parameters_in_float32() -> None:
    exact, low = make_model(), make_model()
    expected = stepping(exact)(make_batch(1))
    result = stepping(low, step={"precision": "bf16"})(make_batch(1))
    assert {parameter.dtype for parameter in low.parameters()} == {torch.float32}
    assert result.losses.dtype == torch.float32
    assert not torch.equal(result.losses, expected.losses), "computed in bf16"
    torch.testing.assert_close(result.losses, expected.losses, atol=0.05, rtol=0.05)


def test_it_is_said_when_the_backward_pass_begins() -> None:
    model = make_model()
    options = TrainerOptions.model_validate({"batch_size": B, "steps": 20})
    optimizer = build_optimizer(options, model.parameters())
    found: list[bool] = []

    def before_backward() -> None:
        found.append(all(parameter.grad is None for parameter in model.parameters()))

    step = make_step(model, optimizer, build_schedule(optimizer, options), options, before_backward=before_backward)
    for number in range(3):
        step(make_batch(number))
    assert found == [True] * 3
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_only_batches_of_the_usual_size_go_through_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def compile(model: nn.Module, *, dynamic: bool) -> Callable[[Tensor], Tensor]:
        assert not dynamic

        def forward(inputs: Tensor) -> Tensor:
            compiled.append(len(inputs))
            return model(inputs)

        return forward

    monkeypatch.setattr(torch, "compile", compile)
    model, plain = make_model(), make_model()
    step, plain_step = stepping(model, step={"compile": True}), stepping(plain)
    for number, size in enumerate((B, B - 1, B)):
        step(make_batch(number, size))
        plain_step(make_batch(number, size))
    assert compiled == [B, B], "a shorter batch would be compiled anew"
    assert torch.equal(parameters(model), parameters(plain))


def test_what_the_cpu_cannot_do_is_refused_with_the_option_to_leave_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--step.capture: graphs are of CUDA, the trainer is on cpu"):
        stepping(make_model(), step={"capture": True})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"--step.compile: needs a C\+\+ compiler"):
        stepping(make_model(), step={"compile": True})


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_rate_of_a_captured_step_stays_one_tensor_that_the_schedule_writes_to(optimizer: str) -> None:
    options = TrainerOptions.model_validate({"optimizer": optimizer, "lr": 0.5, "steps": 4})
    built = build_optimizer(options, make_model().parameters(), capturable=True)
    schedule = build_schedule(built, options)
    rate = built.param_groups[0]["lr"]
    assert isinstance(rate, Tensor)
    built._opt_called = True  # type: ignore[attr-defined]  # Adam's needs a GPU
    for _ in range(2):
        schedule.step()
    assert built.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.25)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_captured_steps_train_as_single_ones_do_whatever_the_rate_and_the_batch(optimizer: str) -> None:
    options = {"optimizer": optimizer, "lr": 0.05, "optim": {"clip_norm": 1.0}}
    captured, single = make_model("cuda"), make_model("cuda")
    step, single_step = stepping(captured, **options, step={"capture": True}), stepping(single, **options)
    assert isinstance(step, CapturedStep)
    for number in range(WARMUP_STEPS + 8):
        size = B - 1 if number in (1, WARMUP_STEPS + 3) else B
        batch = make_batch(number, size, "cuda")
        result, expected = step(batch), single_step(batch)
        torch.testing.assert_close(result.losses, expected.losses, atol=1e-5, rtol=1e-4)
        assert int(result.num_correct) == int(expected.num_correct)
    assert step.num_replayed == 6
    torch.testing.assert_close(parameters(captured), parameters(single), atol=1e-5, rtol=1e-3)


def test_the_usual_step_is_the_plain_one_bit_by_bit() -> None:
    model, other = make_model(), make_model()
    options = TrainerOptions(batch_size=B, steps=20)
    optimizer = build_optimizer(options, other.parameters())
    schedule = build_schedule(optimizer, options)
    step = stepping(model)
    for number in range(3):
        step(make_batch(number))
        train_step(other, optimizer, schedule, make_batch(number), options)
    assert torch.equal(parameters(model), parameters(other))
