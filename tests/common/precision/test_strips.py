"""Images side by side give what images one by one give."""

import pytest
import torch
from torch import Tensor, nn

from common.models import find_head
from common.models.resnet import CifarResNet
from common.models.small import SmallConvNet
from common.models.wide_resnet import WideResNet
from common.precision.int8 import Int8Form
from common.precision.lowering import Lowered
from common.precision.ranges import shapes_of
from common.precision.strips import Strip, find_layout, side_by_side
from common.precision.trace import trace
from tests.common.precision.models import with_statistics

MODELS = {
    "residual": (lambda: CifarResNet(8, 3, 10), (3, 32, 32)),
    "gray": (lambda: CifarResNet(8, 1, 10), (1, 28, 28)),
    "odd size": (lambda: CifarResNet(8, 2, 10), (2, 13, 9)),
    "norm first": (lambda: WideResNet(10, 1, 3, 10), (3, 16, 16)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num", [3, 70])
@torch.no_grad()
def test_results_are_the_same_bit_by_bit(name: str, num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make, shape = MODELS[name]
    model = with_statistics(make())
    form = Int8Form(model, find_head(model))
    inputs = torch.randn(num, *shape)
    monkeypatch.setattr("common.precision.strips.STRIP_WIDTH", 1024)  # several, the last one not full
    form.calibrate(inputs)
    cleared: list[Strip] = []
    clear = Strip.clear_gaps
    monkeypatch.setattr(Strip, "clear_gaps", lambda strip, *args: (cleared.append(strip), clear(strip, *args)))
    together = form(inputs)
    assert cleared
    form = Int8Form(model, find_head(model))
    form.calibrate(inputs)
    monkeypatch.setattr("common.precision.program.find_layout", lambda *args: None)
    assert torch.equal(together, form(inputs))


def test_gaps_start_narrower_in_a_deeper_model_and_are_widened_before_they_halve() -> None:
    first_gaps = {}
    for depth in (8, 44):
        model = with_statistics(CifarResNet(depth, 3, 10))
        traced = trace(model, head := find_head(model))
        calls = Lowered(traced, shapes_of(traced, torch.randn(2, 3, 32, 32)), head)
        layout = find_layout(calls.calls, calls.input, 32, 32)
        assert layout is not None
        first_gaps[depth] = next(iter(layout.written.values())).gap
        assert all((wide.width + wide.gap) % 2 == 0 for wide in layout.widened.values())
        assert len(layout.widened) == {8: 1, 44: 2}[depth]
    assert first_gaps == {8: 2, 44: 1}


def test_widened_strips_hold_the_same_images_with_the_new_pixels_filled() -> None:
    narrow, wide = Strip(3, 5, 1), Strip(3, 5, 3)
    x = torch.randint(256, (7, 4, 3, 5), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert narrow.in_step(8) == wide
    assert torch.equal(narrow.widened(side_by_side(x, narrow, 9), wide, 9), side_by_side(x, wide, 9))


@torch.no_grad()
def test_a_model_whose_steps_would_mix_images_takes_them_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_statistics(SmallConvNet((1, 28, 28), 10))  # its last convolution has no padding
    form = Int8Form(model, find_head(model))
    monkeypatch.setattr("common.precision.program.side_by_side", None)
    monkeypatch.setattr("common.precision.program.pixels_side_by_side", None)
    assert form(torch.randn(9, 1, 28, 28)).shape == (9, 10)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"),
    [
        (3, 1, 1, Strip(8, 8, 2)),
        (3, 2, 1, Strip(4, 4, 1)),
        (1, 2, 0, Strip(4, 4, 1)),
        (5, 1, 2, Strip(8, 8, 2)),
        (7, 1, 3, None),
        (3, 1, 0, None),
        (3, 4, 1, None),
    ],
    ids=["same", "halved", "every second", "wide", "reaches across the gap", "not in step", "gap too small for stride"],
)
def test_what_a_window_makes_of_a_strip(kernel: int, stride: int, padding: int, expected: Strip | None) -> None:
    strip = Strip(8, 8, 2)
    after = strip.after((kernel, kernel), (stride, stride), (padding, padding))
    assert after == expected
    if after is None:
        return
    x = torch.randint(1, 256, (6, 2, 8, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    laid = side_by_side(x, strip, 0)
    weight = torch.randn(3, 2, kernel, kernel)

    def convolved(images: Tensor) -> Tensor:
        return nn.functional.conv2d(images.float(), weight, stride=stride, padding=padding)

    pixels = after.images(convolved(laid))[:, :, :, : after.width]
    images = pixels.permute(0, 2, 4, 1, 3).flatten(0, 1)[:6]
    torch.testing.assert_close(images, convolved(x), rtol=1e-4, atol=1e-3)
