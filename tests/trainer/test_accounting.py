"""Operations counted from the model: by hand for small nets, and a model is left as it was."""

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.config import TrainerOptions
from common.data.source import AbsentSplit, Source, TensorSplit
from common.models import build_model
from trainer.accounting import Account, Cost, count_cost
from trainer.optimizers import build_optimizer, build_schedule
from trainer.step import train_step
from trainer.stream import SelectedBatches

NUM = 40


def features(num_features: int = 6, num_classes: int = 3) -> Source:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(NUM, num_features, generator=draw)
    return Source("features", TensorSplit(inputs, torch.arange(NUM) % num_classes), None, num_classes)


def tokens(length: int = 5) -> Source:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 9, (NUM, length), generator=draw)
    return Source("tokens", TensorSplit(inputs, inputs[:, 0] % 2), None, 2)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))


MLP = Cost(forward=2 * (6 * 4 + 4 * 3), backward=2 * (6 * 4) + 2 * 2 * (4 * 3))  # no gradient of the inputs


class Picky(nn.Module):
    """Looks at what it computes with, which the meta device cannot answer."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = self.dropout(inputs)
        return self.head(inputs) if float(inputs.sum()) < 1e9 else inputs[:, :3]


def test_a_linear_net_costs_two_operations_for_each_multiplication() -> None:
    assert count_cost(mlp(), features()) == MLP


def test_frozen_layers_cost_no_gradient_of_their_weights() -> None:
    model = mlp()
    for layer in list(model)[:-1]:  # type: ignore[call-overload]
        layer.requires_grad_(False)
    assert count_cost(model, features()) == Cost(MLP.forward, 2 * (4 * 3))


def test_a_convolutional_net_counts_by_pixels_of_its_outputs() -> None:
    source = images(1)
    # Convolutions of 3x3 with 16, 32 and 64 channels, of strides 1, 2 and 1 (this one without padding), and the head.
    layers = (8 * 8 * 9 * 1 * 16, 4 * 4 * 9 * 16 * 32, 2 * 2 * 9 * 32 * 64, 64 * 10)
    cost = count_cost(build_model("small", source.sample, seed=0), source)
    assert cost.forward == 2 * sum(layers)
    assert cost.backward == 2 * (2 * sum(layers) - layers[0])


def images(channels: int) -> Source:
    inputs = torch.zeros(4, channels, 8, 8, dtype=torch.uint8)
    return Source("images", TensorSplit(inputs, torch.arange(4)), None, 10)


def test_groups_divide_the_cost_of_a_convolution_and_of_its_gradients() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ConvTranspose2d(4, 8, 2, stride=2, groups=2), nn.Flatten(),
        nn.Linear(8 * 16 * 16, 10),
    )  # fmt: skip
    depthwise, upwards, head = 8 * 8 * 9 * 4, 8 * 8 * 4 * (4 * 8 // 2), 8 * 16 * 16 * 10
    assert count_cost(model, images(4)) == Cost(
        2 * (depthwise + upwards + head), 2 * (depthwise + 2 * upwards + 2 * head)
    )


def test_a_compiled_part_counts_like_the_part_and_is_not_warned_of() -> None:
    model = mlp()
    model[0] = torch.compile(model[0])  # type: ignore[index,operator]
    assert count_cost(model, features()) == MLP


@pytest.mark.parametrize("make", [mlp, Picky])
def test_counting_leaves_the_model_and_random_numbers_as_they_are(make: Callable[[], nn.Module]) -> None:
    model = make().train()
    list(model.children())[-1].eval()  # a frozen part of a model that trains
    before, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    count_cost(model, features())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None and parameter.device.type == "cpu" for parameter in model.parameters())


def looks_at_inputs(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    assert float(args[0].sum()) >= 0


class Reader(nn.Module):
    """Tokens through attention, with a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(tokens_BT)).mean(dim=1))[:, 0]

    def per_sample_loss(self, outputs_B: Tensor, targets_B: Tensor) -> Tensor:
        return (outputs_B - targets_B) ** 2


def test_attention_is_counted_in_eval_mode_too() -> None:
    projections, attention, feedforward = 5 * (4 * 8 * 8), 2 * (5 * 5 * 8), 5 * (2 * 8 * 16)
    cost = count_cost(Reader(), tokens())
    assert cost.forward == 2 * (projections + attention + feedforward + 8)
    assert cost.backward == 2 * cost.forward  # embeddings want a gradient
    frozen = Reader()
    frozen.embed.requires_grad_(False)
    frozen.layer.requires_grad_(False)
    assert count_cost(frozen, tokens()) == Cost(cost.forward, 2 * 8)
    frozen.register_forward_pre_hook(looks_at_inputs)  # on the CPU, where torch fuses frozen layers in eval mode
    assert count_cost(frozen, tokens()) == Cost(cost.forward, 2 * 8)


def test_a_model_that_looks_at_its_inputs_is_counted_on_real_samples() -> None:
    assert count_cost(Picky(), features()) == Cost(2 * 6 * 3, 2 * 6 * 3)


def test_wrappers_and_absent_training_samples_do_not_change_the_count() -> None:
    absent = Source("absent", AbsentSplit(NUM), features().train, 3)
    assert count_cost(nn.DataParallel(mlp()), absent) == MLP


def test_a_model_that_cannot_be_copied_has_an_unknown_cost_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Picky):
        def __deepcopy__(self, memo: dict[int, Any]) -> "Stubborn":
            raise TypeError("one of a kind")

    with caplog.at_level(logging.WARNING):
        cost = count_cost(Stubborn(), features())
    assert math.isnan(cost.forward)
    assert "cannot be counted" in caplog.text
    assert "one of a kind" in caplog.text
    assert Account(cost, 10, {}).row()["flops_scoring"] == 0  # nothing costs nothing
    assert math.isnan(Account(cost, 10, {}).row()["flops_training"])


def test_scoring_is_accounted_by_precision_and_what_others_scored_is_none_of_the_model() -> None:
    scored = {("torch", "float32"): 30, ("torch", "bf16"): 5, ("proxy", "float32"): 7, ("predictor", "float32"): 1}
    account = Account(Cost(10.0, 20.0), 4, scored, audited=3)
    assert account.row() == {
        "samples_trained": 4, "samples_scored": 43, "flops_training": 120, "flops_scoring": 350
    }  # fmt: skip
    summary = account.summary()
    assert summary["scored_elsewhere"] == {"proxy": 7, "predictor": 1}
    assert summary["flops"] == {
        "forward_per_sample": 10, "backward_per_sample": 20, "training": 120,
        "scoring": {"float32": 300, "bf16": 50}, "audit": 30,
    }  # fmt: skip


def run(
    method: str, steps: int = 10, hook: Callable[..., None] = lambda *_: None, **more: Any
) -> tuple[dict[str, Any], int]:
    """The summary of a fresh run over features with b = 4 of B = 8, and the samples in all its batches.

    `hook` sees module, inputs and output of the first layer.
    """
    given = {"mode": "fresh", "method": method, "steps": steps, "batch_size": 4, "candidates": 8, "device": "cpu"}
    options = TrainerOptions.model_validate({**given, **more})
    source, trained = features(), 0
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))  # costs what `mlp` does
    optimizer = build_optimizer(options, model.parameters())
    schedule = build_schedule(optimizer, options)
    model[0].register_forward_hook(hook)
    with SelectedBatches(options, source, model) as batches:
        for batch in batches:
            trained += len(batch)
            batches.step(train_step(model, optimizer, schedule, batch, options).losses)
        return batches.summary(), trained


PLAIN_ENDS = {"selection": {"warmup_fraction": 0.2, "anneal_fraction": 0.1}}  # 3 of 10 steps


def test_a_fresh_run_accounts_for_every_sample_that_it_trained_and_scored() -> None:
    summary, trained = run("mms", **PLAIN_ENDS)
    assert (summary["samples_trained"], trained, summary["samples_scored"]) == (40, 40, 7 * 8)
    assert summary["flops"]["training"] == 40 * (MLP.forward + MLP.backward)
    assert summary["flops"]["scoring"] == {"float32": 56 * MLP.forward}
    assert summary["staleness_counts"] == {0: 28}


def test_plain_training_scores_nothing() -> None:
    summary, _ = run("uniform", mode="uniform")
    assert (summary["samples_scored"], summary["flops"]["scoring"], summary["staleness_counts"]) == (0, {}, {})


def test_a_sample_drawn_twice_is_computed_once_and_counted_once() -> None:
    ends = {"warmup_fraction": 0.0, "anneal_fraction": 0.0, "tau_threshold": 1e-6, "temperature": 0.05}
    summary, trained = run("gradient-norm", steps=20, selection=ends)
    assert trained < 80, "nothing was drawn twice"
    assert summary["samples_trained"] == trained
    assert summary["flops"]["training"] == trained * (MLP.forward + MLP.backward)
    assert summary["samples_scored"] == 20 * 8


def test_fresh_mode_scores_in_the_precision_asked_for_and_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.precision.low.cpu_has_bf16", lambda: True)
    seen = set()

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.device.type == "cpu":
            seen.add((layer.training, output.dtype))

    low, _ = run("mms", hook=look, precision="bf16", **PLAIN_ENDS)
    assert {(True, torch.float32), (False, torch.bfloat16)} <= seen
    assert (True, torch.bfloat16) not in seen
    assert low["flops"]["scoring"] == {"bf16": 56 * MLP.forward}
    assert low["flops"]["training"] == 40 * (MLP.forward + MLP.backward)
