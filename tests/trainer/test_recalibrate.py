"""Running statistics after training on hard samples: estimated anew on uniform ones, in a copy."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import TrainerOptions
from common.data.source import AbsentSplit, Source, TensorSplit
from common.data.sources import open_source
from common.errors import DataError
from common.models import build_model
from trainer.evaluate import evaluate
from trainer.recalibrate import recalibrated, recalibration_inputs


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def net() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=0.3))


def batches_of_floats(num: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [5 + 3 * torch.randn(16, 3, generator=generator) for _ in range(num)]


@pytest.fixture(scope="module")
def digits() -> Source:
    return open_source(TrainerOptions())


@pytest.fixture(scope="module")
def biased(digits: Source) -> tuple[nn.Module, float]:
    """A model trained on all digits whose statistics were then learned on images of 0 alone; its accuracy before."""
    model = build_model("small", digits.sample, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    inputs, targets = digits.train.fetch(torch.arange(len(digits.train)))
    for ids in torch.randint(len(inputs), (150, 64), generator=torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        F.cross_entropy(model(digits.prepare(inputs[ids])), targets[ids]).backward()
        optimizer.step()
    before = evaluate(model, digits, device="cpu").accuracy
    with torch.no_grad():
        for _ in range(50):
            model(digits.prepare(inputs[targets == 0][:64]))
    return model, before


def test_statistics_of_hard_samples_are_corrected_and_so_is_the_accuracy(digits, biased) -> None:
    model, before = biased
    spoilt = evaluate(model, digits, device="cpu").accuracy
    corrected = recalibrated(model, recalibration_inputs(digits, 1024, "cpu", 0))
    assert before > 0.95
    assert spoilt < before - 0.1
    assert evaluate(corrected, digits, device="cpu").accuracy == pytest.approx(before, abs=0.02)


def test_the_original_is_bitwise_as_it_was(digits, biased) -> None:
    model, _ = biased
    state = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    corrected = recalibrated(model, recalibration_inputs(digits, 256, "cpu", 0))
    assert corrected is not model
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert [module.training for module in corrected.modules()] == flags
    parameters = zip(corrected.parameters(), model.parameters(), strict=True)
    assert all(mine is not theirs and torch.equal(mine, theirs) for mine, theirs in parameters)


def test_statistics_are_the_means_of_those_of_the_batches_and_nothing_is_dropped() -> None:
    model, batches = net(), batches_of_floats()
    first = recalibrated(model, batches)[1]
    torch.testing.assert_close(first.running_mean, torch.stack([batch.mean(0) for batch in batches]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([batch.var(0) for batch in batches]).mean(0))
    assert first.num_batches_tracked == 4


def test_momentum_and_flags_come_back_also_in_a_model_that_evaluates() -> None:
    for model in (net(), net().eval()):
        copied = recalibrated(model, batches_of_floats())
        assert [copied[1].momentum, copied[3].momentum] == [0.1, 0.3]
        assert [module.training for module in copied.modules()] == [module.training for module in model.modules()]
        assert copied[1].running_mean.mean() > 4


def test_a_frozen_layer_keeps_its_statistics() -> None:
    model = net()
    model[1].eval()
    copied = recalibrated(model, batches_of_floats())
    assert torch.equal(copied[1].running_mean, torch.zeros(3))
    assert not copied[1].training
    assert copied[3].num_batches_tracked == 4


def test_a_model_without_statistics_is_returned_as_it_is() -> None:
    def never():
        pytest.fail("a batch was taken")
        yield

    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)):
        assert recalibrated(model, never()) is model


def test_a_compiled_model_is_not_compiled_again() -> None:
    def refuse(graph: object, inputs: object) -> None:
        raise AssertionError("compiled")

    model = net()
    copied = recalibrated(torch.compile(model, backend=refuse), batches_of_floats())
    assert type(copied) is nn.Sequential
    assert copied is not model


def test_no_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="no batches"):
        recalibrated(net(), [])


@pytest.mark.parametrize(("num", "sizes"), [(600, [256, 256]), (40, [40]), (256, [256])])
def test_inputs_come_in_batches_of_one_size(digits, num: int, sizes: list[int]) -> None:
    assert [len(inputs) for inputs in recalibration_inputs(digits, num, "cpu", 0)] == sizes


def test_inputs_are_uniform_keyed_and_prepared_but_not_augmented() -> None:
    split = TensorSplit(torch.arange(100).float().unsqueeze(1), torch.zeros(100, dtype=torch.int64))
    source = Source("numbers", split, None, 2)

    def ids(seed: int) -> list[float]:
        return torch.cat(list(recalibration_inputs(source, 100, "cpu", seed, batch_size=10))).flatten().tolist()

    assert sorted(ids(0)) == list(range(100))
    assert ids(0) == ids(0) != ids(1)
    assert np.std(ids(0)[:50]) > 20  # no run of neighbours


def test_training_data_that_are_absent_are_named() -> None:
    split = TensorSplit(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match="cannot read the training data"):
        next(recalibration_inputs(Source("absent", AbsentSplit(9), split, 2), 4, "cpu", 0))
