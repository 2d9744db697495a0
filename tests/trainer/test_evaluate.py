"""Evaluation against counting by hand, and plain training of the default model on the default data."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.trainer import TrainerOptions
from common.data.source import Source, TensorSplit
from common.data.sources import open_source
from common.errors import DataError
from common.models import build_model
from trainer.evaluate import Evaluation, evaluate, sample_losses
from trainer.optimizers import build_optimizer, build_schedule


class Table(nn.Module):
    """Outputs that the input, a row number, looks up; with a loss of its own where `tokens`."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)
        self.dropout = nn.Dropout(0.5)

    def forward(self, rows: Tensor) -> Tensor:
        return self.dropout(self.outputs[rows[:, 0]])


class OwnLoss(Table):
    def per_sample_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.arange(len(outputs)).float()


def held_out(targets: Tensor, num_classes: int) -> Source:
    split = TensorSplit(torch.arange(len(targets)).unsqueeze(1), targets)
    return Source("table", train=split, held_out=split, num_classes=num_classes)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 512])
def test_loss_and_accuracy_are_means_over_all_held_out_samples_whatever_the_batches(batch_size: int):
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(10, 3, generator=generator), torch.randint(3, (10,), generator=generator)
    result = evaluate(Table(logits), held_out(targets, 3), device="cpu", batch_size=batch_size)
    expected = sum(
        -math.log(math.exp(z[t]) / sum(math.exp(v) for v in z)) for z, t in zip(logits, targets, strict=True)
    )
    assert result.num == 10
    assert result.accuracy == sum(int(z.argmax() == t) for z, t in zip(logits, targets, strict=True)) / 10
    assert result.loss == pytest.approx(expected / 10, rel=1e-5)


def test_losses_of_samples_come_in_the_order_of_their_ids():
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    source = held_out(torch.arange(10) % 3, 3)
    ids = torch.tensor([9, 0, 4, 9, 7])
    losses, evaluation = sample_losses(Table(logits), source, source.train, ids, device="cpu", batch_size=2)
    torch.testing.assert_close(losses, F.cross_entropy(logits[ids], ids % 3, reduction="none"))
    assert (losses.dtype, losses.requires_grad) == (torch.float32, False)
    assert evaluation.num == 5
    assert evaluation.loss == pytest.approx(losses.mean().item())
    assert evaluation.accuracy == (logits[ids].argmax(1) == ids % 3).double().mean().item()


@pytest.mark.parametrize("classes_last", [True, False])
def test_accuracy_of_several_targets_per_sample_is_over_all_of_them(classes_last: bool):
    targets = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    logits = F.one_hot(targets, 6).float()
    logits[1, :3] = F.one_hot(torch.tensor(5), 6)  # three of ten wrong
    model = OwnLoss(logits if classes_last else logits.transpose(1, 2).contiguous())
    assert evaluate(model, held_out(targets, 6), device="cpu") == Evaluation(accuracy=0.7, loss=0.5, num=2)


def test_one_logit_decides_between_two_classes():
    model = OwnLoss(torch.tensor([[2.0], [-1.0], [0.5], [-3.0]]))
    assert evaluate(model, held_out(torch.tensor([1, 0, 0, 0]), 2), device="cpu").accuracy == 0.75


def test_outputs_that_are_no_logits_have_a_loss_but_no_accuracy():
    result = evaluate(OwnLoss(torch.zeros(3, 2)), held_out(torch.tensor([1, 0, 4]), 5), device="cpu")
    assert math.isnan(result.accuracy)
    assert result.loss == 1


def test_training_flags_statistics_and_gradients_stay_as_they_were():
    source = open_source(TrainerOptions())
    model = build_model("small", source.sample, seed=0)
    model.layers[1].eval()  # a frozen part stays frozen
    flags = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert evaluate(model, source, device="cpu") == evaluate(model, source, device="cpu")
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_compiled_model_is_evaluated_without_compiling_for_its_last_batch():
    def refuse(graph: object, inputs: object) -> None:
        raise AssertionError("compiled")

    model = Table(torch.eye(3))
    compiled = torch.compile(model, backend=refuse)
    assert evaluate(compiled, held_out(torch.arange(3), 3), device="cpu", batch_size=2).accuracy == 1


def test_a_source_without_held_out_data_is_refused():
    source = Source("mine", train=TensorSplit(torch.zeros(1, 1), torch.zeros(1).long()), held_out=None, num_classes=2)
    with pytest.raises(DataError, match="source mine has no held-out data"):
        evaluate(nn.Linear(1, 2), source, device="cpu")


def test_plain_sgd_with_the_default_options_trains_small_on_digits_to_97_percent_in_400_steps():
    options = TrainerOptions(steps=400)
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    optimizer = build_optimizer(options, model.parameters())
    schedule = build_schedule(optimizer, options)
    generator = torch.Generator().manual_seed(0)
    for _ in range(options.steps):
        ids = torch.randint(len(source.train), (options.batch_size,), generator=generator)
        inputs, targets = source.train.fetch(ids)
        F.cross_entropy(model(source.prepare(inputs)), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    assert evaluate(model, source, device="cpu").accuracy >= 0.97


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_evaluation_waits_for_the_device_once():
    source = open_source(TrainerOptions())
    model = build_model("small", source.sample, seed=0)
    expected = evaluate(model, source, device="cpu")
    model = model.cuda()
    evaluate(model, source, device="cuda", batch_size=64)  # constants of the normalisation are copied once
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            result = evaluate(model, source, device="cuda", batch_size=64)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([wait for wait in waits if "synchronizing CUDA operation" in str(wait.message)]) == 1
    assert result.loss == pytest.approx(expected.loss, rel=1e-3)
