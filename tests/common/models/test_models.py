"""Models by name: the papers' sizes, the data's shapes, seeds, and what is said about those that do not fit."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.data.source import SampleSpec
from common.errors import ConfigError
from common.models import build_model, check_model, evaluating, find_head
from common.models.resnet import BasicBlock, CifarResNet
from common.models.wide_resnet import WideResNet


def spec(
    *shape: int, dtype: torch.dtype = torch.uint8, num_classes: int = 10, target_shape: tuple[int, ...] = ()
) -> SampleSpec:
    return SampleSpec(shape, dtype, target_shape, num_samples=100, num_classes=num_classes)


CIFAR = spec(3, 32, 32)
DIGITS = spec(1, 8, 8)
FEATURES = spec(2, dtype=torch.float32, num_classes=4)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_residual_nets_have_the_parameters_of_the_paper_s_table_6(depth: int, millions: float):
    num = num_parameters(CifarResNet(depth, in_channels=3, num_classes=10)) / 1e6
    assert num == pytest.approx(millions, abs=0.005 if millions < 1 else 0.05)


@pytest.mark.parametrize(("depth", "widening", "millions"), [(40, 1, 0.6), (16, 8, 11.0), (28, 10, 36.5)])
def test_wide_residual_nets_have_the_parameters_of_the_paper_s_table_4(depth: int, widening: int, millions: float):
    with torch.device("meta"):
        model = WideResNet(depth, widening, in_channels=3, num_classes=10)
    assert num_parameters(model) / 1e6 == pytest.approx(millions, abs=0.05)


def test_names_give_nets_of_their_depth():
    assert len(build_model("resnet44", CIFAR, seed=0).blocks) == 3 * 7
    assert len(build_model("wrn-10-2", CIFAR, seed=0).blocks) == 3 * 1


def test_a_widening_block_adds_every_second_pixel_and_zeros_for_new_channels():
    block = BasicBlock(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)  # no residual: what is left is the shortcut
    x = torch.rand(1, 2, 5, 5)
    expected = torch.zeros(1, 4, 3, 3)
    expected[:, :2] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), expected)


def test_resnet50_is_torchvision_s_and_cifar_resnet50_the_paper_s():
    assert type(build_model("resnet50", CIFAR, seed=0)).__module__.startswith("torchvision.")
    assert isinstance(build_model("cifar-resnet50", CIFAR, seed=0), CifarResNet)


@pytest.mark.parametrize("name", ["small", "resnet8", "wrn-10-1", "resnet18"])
@pytest.mark.parametrize("sample", [DIGITS, spec(3, 17, 30, num_classes=3), spec(5, 40, 70, dtype=torch.float32)])
def test_models_adapt_to_shape_channels_and_classes_and_train_all_their_parameters(name: str, sample: SampleSpec):
    model = build_model(name, sample, seed=0)
    outputs = model(torch.rand(2, *sample.shape))
    assert outputs.shape == (2, sample.num_classes)
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert find_head(model).out_features == sample.num_classes


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 9), (1, 28, 28), (3, 33, 33), (3, 224, 224)])
def test_small_takes_images_of_any_size(shape: tuple[int, int, int]):
    build_model("small", spec(*shape), seed=0)


@pytest.mark.parametrize("shape", [(2,), (7, 3)])
def test_small_is_two_linear_layers_for_features(shape: tuple[int, ...]):
    model = build_model("small", spec(*shape, dtype=torch.float32, num_classes=4), seed=0)
    assert [type(layer) for layer in model.children()] == [nn.Linear, nn.Linear]
    assert model(torch.rand(5, *shape)).shape == (5, 4)


@pytest.mark.parametrize("name", ["vit_b_16", "googlenet"])
def test_torchvision_s_models_with_a_size_or_auxiliary_outputs_take_small_grey_images(name: str):
    model = build_model(name, spec(1, 32, 32, num_classes=3), seed=0)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_a_first_convolution_for_other_channels_keeps_the_variance_of_its_outputs():
    def output_std(channels: int) -> float:
        model = build_model("resnet18", spec(channels, 32, 32), seed=0)
        return model.conv1(torch.randn(8, channels, 32, 32, generator=torch.Generator().manual_seed(0))).std().item()

    assert output_std(1) == pytest.approx(output_std(3), rel=0.1)


@pytest.mark.parametrize("name", ["small", "resnet8", "resnet18"])
def test_one_seed_gives_bitwise_equal_weights_and_another_seed_others(name: str):
    first, again, other = (build_model(name, CIFAR, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_the_global_generator_where_it_was():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_model("small", DIGITS, seed=9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "sample", "message"),
    [
        ("resnet43", CIFAR, r"--model resnet43.*6n\+2, such as 38 or 44, got 43.*resnet18"),
        ("resnet2", CIFAR, r"6n\+2, such as 8, got 2"),
        ("cifar-resnet34", CIFAR, r"6n\+2, such as 32 or 38"),
        ("wrn-30-10", CIFAR, r"--model wrn-30-10.*6n\+4, such as 28 or 34, got 30"),
        ("wrn-28-0", CIFAR, r"unknown.*wrn-28-10"),
        ("reznet20", CIFAR, r"--model reznet20: unknown; must be small.*Did you mean resnet20 or"),
        ("MobileNet_v2", CIFAR, r"Did you mean mobilenet_v2"),
        ("", CIFAR, r"--model : unknown"),
        ("resnet8", FEATURES, r"--model resnet8: needs images.*float32 of shape \(2,\).*choose small"),
        ("resnet18", FEATURES, r"--model resnet18: needs images"),
        ("small", spec(16, dtype=torch.int64), r"--model small: needs images or features.*int64.*module:callable"),
        ("resnet8", spec(3, 8, 8, target_shape=(4,)), r"--model resnet8: .*targets are a tensor \(2, 4\)"),
        ("alexnet", CIFAR, r"--model alexnet: does not take.*\(3, 32, 32\).*too small"),
        ("vit_b_16", DIGITS, r"--model vit_b_16: cannot be built.*\(1, 8, 8\)"),
        ("squeezenet1_0", CIFAR, r"no nn.Linear"),
    ],
)
def test_a_model_that_is_unknown_or_does_not_fit_the_data_is_refused(name: str, sample: SampleSpec, message: str):
    with pytest.raises(ConfigError, match=message):
        build_model(name, sample, seed=0)


OWN = """
import torch
from torch import nn
LAST = {}
def by_name(*, num_classes, sample, width=4): return nn.Sequential(nn.Flatten(), nn.Linear(*sample.shape, num_classes))
def by_order(spec, classes): return nn.Sequential(nn.Linear(spec.shape[0], classes))
def shape_too(num_classes, shape): return nn.Linear(*shape, num_classes)
def spec_too(num_classes, spec): return nn.Linear(*spec.shape, num_classes)
def default_shape(classes, shape=(2,)): return nn.Linear(*shape, classes)
def classes_only(classes): return nn.Linear(2, classes)
def default_classes(num_classes=1000): return nn.Linear(2, num_classes)
def nothing(width=3): return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 4))
def wrong_classes(): return nn.Linear(2, 1000)
def too_many(a, b, c): raise AssertionError
def not_a_module(): return 7
def random(): return nn.Linear(2, 4)
class Tokens(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.embed, self.head = nn.Embedding(num_classes, 8), nn.Linear(8, num_classes)
    def forward(self, tokens): return self.head(self.embed(tokens))
    def per_sample_loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(dim=1)
class Broken(Tokens):
    def per_sample_loss(self, outputs, targets): return outputs + targets
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_models", None)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    "name",
    [
        "by_name",
        "by_order",
        "shape_too",
        "spec_too",
        "default_shape",
        "classes_only",
        "default_classes",
        "nothing",
    ],
)
def test_own_models_are_called_with_what_their_signature_asks_for(name: str):
    model = build_model(f"own_models:{name}", FEATURES, seed=0)
    assert model(torch.rand(3, 2)).shape == (3, 4)


@pytest.mark.usefixtures("own")
def test_own_models_get_their_weights_from_the_seed():
    weights = [build_model("own_models:random", FEATURES, seed=seed).weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.usefixtures("own")
def test_an_own_model_of_tokens_with_its_own_loss_passes():
    sample = spec(12, dtype=torch.int64, num_classes=50, target_shape=(12,))
    model = build_model("own_models:Tokens", sample, seed=0)
    assert model(torch.zeros(2, 12, dtype=torch.int64)).shape == (2, 12, 50)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "sample", "message"),
    [
        ("wrong_classes", FEATURES, r"head has 1000 outputs and the data have 4 classes.*--head"),
        ("too_many", FEATURES, r"own_models:too_many.*requires \(a, b, c\)"),
        ("not_a_module", FEATURES, r"must return a torch.nn.Module, got int"),
        ("nothing", spec(3, dtype=torch.float32, num_classes=4), r"does not take.*\(3,\).*RuntimeError"),
        ("missing", FEATURES, r"--model own_models:missing"),
        ("Broken", spec(12, dtype=torch.int64, target_shape=(12,)), r"per_sample_loss failed: RuntimeError"),
    ],
)
def test_own_models_that_do_not_fit_are_refused(name: str, sample: SampleSpec, message: str):
    with pytest.raises(ConfigError, match=message):
        build_model(f"own_models:{name}", sample, seed=0)


def test_checking_a_model_changes_neither_its_statistics_nor_its_flags():
    model = build_model("small", DIGITS, seed=0)
    model.layers[1].eval()
    flags = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    check_model(model, DIGITS, find_head(model))
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_training_flags_come_back_after_an_error():
    class Failing(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            raise RuntimeError("no")

    model = nn.Sequential(nn.Dropout().eval(), Failing())
    with pytest.raises(RuntimeError, match="no"), evaluating(model):
        model(torch.zeros(1))
    assert [module.training for module in model.modules()] == [True, False, True]
