"""bf16: the master's logits within rounding, whatever the model is made of, and after each push."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.data.source import SampleSpec
from common.models import build_model, find_head
from common.precision.forms import make_form
from common.precision.low import LowForm
from common.precision.slices import in_slices
from common.scored import Scored
from common.scoring import score_candidates


class Gated(nn.Module):
    """An addition that broadcasts, one of a constant, a convolution of groups and one that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.pad = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        x = F.relu(self.stem(inputs) + 0.5)
        x = self.norm(self.grouped(x))
        x = x + torch.relu(x)
        x = F.relu(self.squeeze(x.mean((2, 3), keepdim=True)) + x)
        x = self.pad(x).add_(x).relu_()
        return self.head(x.flatten(2).amax(2))


class LooksAtValues(nn.Module):
    """Cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.conv(inputs)
        if x.sum() > 1e9:
            x = x * 2
        return self.head(x.mean((2, 3)))


class Squashed(nn.Module):
    """Its head's output is not what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.log_softmax(self.head(self.conv(inputs).mean((2, 3))), dim=1)


class Tokens(nn.Module):
    """Integers in, attention inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(inputs)).mean(1))


def named(name: str, shape: tuple[int, ...]) -> Callable[[], nn.Module]:
    return lambda: build_model(name, SampleSpec(shape, torch.uint8, (), 10, 10), seed=0)


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "resnet8": (named("resnet8", (3, 16, 16)), images(20, 3, 16, 16)),
    "grayscale of odd size": (named("resnet8", (1, 13, 9)), images(5, 1, 13, 9)),
    "wrn-10-1": (named("wrn-10-1", (3, 8, 8)), images(5, 3, 8, 8)),
    "small": (named("small", (1, 8, 8)), images(5, 1, 8, 8)),
    "features": (named("small", (7,)), images(5, 7)),
    "torchvision's resnet18": (named("resnet18", (3, 32, 32)), images(3, 3, 32, 32)),
    "torchvision's mobilenet_v2": (named("mobilenet_v2", (3, 32, 32)), images(3, 3, 32, 32)),
    "unusual additions": (Gated, images(5, 2, 9, 9)),
    "untraceable": (LooksAtValues, images(5, 2, 9, 9)),
    "log-probabilities": (Squashed, images(5, 2, 9, 9)),
    "tokens": (Tokens, torch.arange(12).view(3, 4) % 11),
}


def trained(make: Callable[[], nn.Module], inputs: Tensor) -> nn.Module:
    """In eval mode, with BatchNorm statistics of its own."""
    torch.manual_seed(0)
    model = make().train()
    with torch.no_grad():
        model(inputs)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.uniform_(-0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("has_bf16", "tolerance"), [(False, 1e-4), (True, 0.1)])
def test_bf16_gives_the_logits_of_the_master_before_and_after_its_weights_change(
    name: str, has_bf16: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.precision.low.cpu_has_bf16", lambda: has_bf16)
    make, inputs = MODELS[name]
    model = trained(make, inputs)
    form = make_form(model, find_head(model), "bf16")
    with torch.inference_mode():
        for _ in range(2):
            expected = model(inputs)
            got = form(inputs)
            assert got.dtype == torch.float32
            scale = float(expected.abs().max())
            torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * scale)
            with torch.no_grad():
                for value in model.state_dict().values():
                    if value.is_floating_point():
                        value.mul_(1.25)
            form.refresh()
    assert form.num_refreshed == 2
    assert form.refresh_s > 0


def test_until_it_is_refreshed_a_fused_form_computes_with_the_weights_it_had() -> None:
    make, inputs = MODELS["resnet8"]
    model = trained(make, inputs)
    form = make_form(model, find_head(model), "bf16")
    before = form(inputs)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
    assert torch.equal(form(inputs), before)
    form.refresh()
    assert not torch.allclose(form(inputs), before)


def test_large_batches_go_in_slices_and_the_head_still_sees_all_of_them_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, inputs = MODELS["resnet8"]
    model = trained(make, inputs)
    head = find_head(model)
    sizes: list[int] = []
    of_head: list[int] = []
    body = LowForm._body

    def noted(self: LowForm, inputs: Tensor) -> Any:
        sizes.append(len(inputs))
        return body(self, inputs)

    monkeypatch.setattr(LowForm, "_body", noted)
    head.register_forward_hook(lambda module, given, output: of_head.append(len(given[0])))

    def scored() -> Scored:
        form = make_form(model, head, "bf16")
        sizes.clear()
        of_head.clear()
        return score_candidates(model, head, inputs, torch.arange(20) % 10, ["mms"], embeddings=True, forward=form)

    whole = scored()
    assert (sizes, of_head) == ([20], [20])
    monkeypatch.setitem(in_slices.__kwdefaults__, "slice_bytes", 1)
    sliced = scored()
    assert (sizes, of_head) == ([7, 7, 6], [20])
    torch.testing.assert_close(sliced.scores["mms"], whole.scores["mms"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(sliced.features, whole.features, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(sliced.errors, whole.errors, rtol=1e-2, atol=1e-2)


def test_a_model_in_training_is_scored_in_eval_mode_and_goes_on_training() -> None:
    make, inputs = MODELS["resnet8"]
    model = trained(make, inputs)
    form = make_form(model, find_head(model), "bf16")
    expected = form(inputs)
    model.train()
    model.blocks[0].eval()  # type: ignore[index,union-attr]  # a frozen part
    flags = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(form(inputs), expected)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
