"""The int8 form against the model in float32."""

import math

import pytest
import torch
from torch import Tensor, nn

from common.config import DataOptions
from common.data.normal import Normal
from common.data.sources import open_source
from common.models import build_model, find_head
from common.models.resnet import CifarResNet
from common.models.small import SmallConvNet, SmallMLP
from common.models.wide_resnet import WideResNet
from common.precision.forms import make_form
from common.precision.int8 import Int8Form
from common.scoring import score_candidates
from common.selection.agreement import selected_overlap
from tests.common.precision.models import Bounded, Motley, Tokens, with_statistics

MODELS = {
    "residual": (lambda: CifarResNet(8, 3, 10), (3, 32, 32)),
    "odd size": (lambda: CifarResNet(8, 2, 10), (2, 13, 9)),
    "gray": (lambda: SmallConvNet((1, 28, 28), 10), (1, 28, 28)),
    "features": (lambda: SmallMLP((20,), 10), (20,)),
    "norm first": (lambda: WideResNet(10, 1, 3, 10), (3, 16, 16)),
    "motley": (Motley, (1, 33, 30)),
    "norm over tokens": (Tokens, (7, 12)),
    "clipped beside large values": (Bounded, (3, 12, 12)),
    "only a head": (lambda: nn.Linear(6, 3), (6,)),
}


def form_of(model: nn.Module) -> Int8Form:
    return Int8Form(model, find_head(model))


@torch.no_grad()
def relative_error(outputs: Tensor, expected: Tensor) -> float:
    return float((outputs - expected).square().mean().sqrt() / expected.std())


@pytest.fixture
def resnet() -> CifarResNet:
    torch.manual_seed(0)
    return with_statistics(CifarResNet(8, 3, 10))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits_are_close_to_those_in_float32(name: str) -> None:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = with_statistics(make())
    inputs = torch.randn(40, *shape)
    form = form_of(model)
    form.calibrate(inputs)
    outputs = form(inputs)
    assert outputs.dtype == torch.float32
    assert relative_error(outputs, model(inputs)) < 0.04
    torch.testing.assert_close(form(inputs[:1]), outputs[:1])


def test_it_selects_what_float32_selects_from_a_trained_model() -> None:
    source = open_source(DataOptions(data="digits"))
    model = build_model("small", source.sample, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, targets = source.train.fetch(torch.arange(640))
    inputs = source.prepare(inputs)
    for _ in range(5):
        for batch, classes in zip(inputs.split(64), targets.split(64), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), classes).backward()
            optimizer.step()
    head = find_head(model)
    form = make_form(model, head, "int8")
    form.calibrate(inputs)
    exact, scored = (
        score_candidates(model, head, inputs, targets, ["mms", "loss"], forward=forward) for forward in (None, form)
    )
    overlap = {
        name: selected_overlap(exact.scores[name], scored.scores[name], 64, lowest_is_hard=name == "mms")
        for name in ("mms", "loss")
    }
    assert overlap["mms"] >= 0.85
    assert overlap["loss"] >= 0.95


@torch.no_grad()
def test_weights_that_were_pushed_count_after_a_refresh_that_traces_and_calibrates_nothing(
    resnet: CifarResNet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = form_of(resnet)
    form.calibrate(images)
    before = form(images)
    first = {name: value.clone() for name, value in resnet.state_dict().items()}
    monkeypatch.setattr("common.precision.int8.trace", None)
    monkeypatch.setattr("common.precision.program.ranges_of", None)
    for value in (*resnet.conv.parameters(), *resnet.blocks.parameters()):
        value.add_(torch.randn_like(value) * value.std(correction=0) * 0.1)
    resnet.norm.running_mean.add_(0.05)
    assert torch.equal(form(images), before)
    form.refresh()
    assert relative_error(form(images), resnet(images)) < 0.08
    assert relative_error(form(images), before) > 0.08
    resnet.load_state_dict(first)
    form.refresh()
    assert torch.equal(form(images), before)
    assert (form.num_refreshed, form.num_calibrated) == (2, 1)
    assert form.refresh_s > 0
    assert form.calibrate_s > 0


@torch.no_grad()
def test_without_calibration_the_first_inputs_calibrate(resnet: CifarResNet, images: Tensor) -> None:
    form = form_of(resnet)
    form.refresh()
    assert form(images[:0]).shape == (0, 10)
    assert form.num_calibrated == 0
    assert relative_error(form(images), resnet(images)) < 0.04
    assert form.num_calibrated == 1


@torch.no_grad()
def test_the_head_is_the_masters_own_and_called_once_a_batch(resnet: CifarResNet, images: Tensor) -> None:
    form = form_of(resnet)
    form.calibrate(images)
    seen: list[Tensor] = []
    resnet.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    outputs = form(images.repeat(10, 1, 1, 1))
    assert [tuple(features.shape) for features in seen] == [(320, 64)]
    torch.testing.assert_close(outputs, nn.functional.linear(seen[0], resnet.head.weight, resnet.head.bias))


@torch.no_grad()
def test_what_is_not_finite_stays_visible(resnet: CifarResNet, images: Tensor) -> None:
    form = form_of(resnet)
    form.calibrate(images)
    images = images.clone()
    images[3, 0, 0, 0] = float("nan")
    assert form(images).isfinite().all(dim=1).tolist() == [index != 3 for index in range(len(images))]
    resnet.blocks[0].conv1.weight[0, 0, 0, 0] = float("nan")
    form.refresh()
    assert form(images[4:]).isnan().any()


@torch.no_grad()
def test_a_model_without_logits_of_its_head_keeps_its_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = self.body(x).relu()
            return {"logits": self.head(hidden), "hidden": hidden}

    model = Two().eval()
    inputs = torch.randn(9, 6)
    outputs = form_of(model)(inputs)
    for name, expected in model(inputs).items():
        assert relative_error(outputs[name], expected) < 0.04


class ReadAgain(nn.Module):
    """A summand that is read after its sum, and a value read after it was changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        y = (self.second(x) + x).relu()
        z = self.second(y)
        z.clamp_(max=0.1)
        return self.head(torch.cat([part.mean((2, 3)) for part in (x, y, z)], 1))


@torch.no_grad()
def test_values_that_are_overwritten_are_read_as_the_model_reads_them(images: Tensor) -> None:
    torch.manual_seed(0)
    model = ReadAgain().eval()
    assert relative_error(form_of(model)(images), model(images)) < 0.04


@pytest.mark.parametrize("name", ["residual", "odd size", "gray", "norm first", "motley"])
def test_images_in_bytes_are_scored_as_prepared_ones(name: str) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = with_statistics(make()).eval()
    normal = Normal(torch.rand(shape[0], 1, 1) / 64 + 1 / 128, torch.rand(shape[0], 1, 1) - 2)
    raw = torch.randint(0, 256, (70, *shape), dtype=torch.uint8)
    form = Int8Form(model, find_head(model), normal)
    form.calibrate(raw)
    assert form._program is not None
    assert form._program.takes_bytes == (1 < shape[0] < 4)  # else they are prepared first
    expected = form(normal.prepare(raw))
    torch.testing.assert_close(form(raw), expected, rtol=0, atol=0.02 * float(expected.abs().max()))
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0] = math.nan
    form.refresh()
    with torch.no_grad():  # in float32: bytes would hide it
        torch.testing.assert_close(form(raw), model(normal.prepare(raw)), equal_nan=True)
