"""Weights in int8 against each layer folded by itself."""

import torch
from torch import nn

from common.precision.bank import LIMIT, Bank, Layer
from common.precision.trace import affine_of, folded
from tests.common.precision.models import with_statistics


def test_layers_come_back_in_order_each_within_half_a_level_of_the_folded_one() -> None:
    layers = [
        Layer(nn.Conv2d(4, 6, 3, bias=False), with_statistics(nn.BatchNorm2d(6))),
        Layer(nn.Linear(8, 3), None),
        Layer(nn.Conv2d(8, 4, 1, groups=2), with_statistics(nn.BatchNorm2d(4, affine=False))),
        Layer(nn.Conv2d(4, 2, 3), None),
    ]
    for layer, weights in zip(layers, Bank(layers).quantised(), strict=True):
        weight, bias = folded(layer.layer, layer.norm)
        scales = weights.scales.view(-1, *[1] * (weight.ndim - 1))
        assert ((weights.values * scales - weight).abs() <= scales * 0.501).all()
        assert (weights.values.flatten(1).abs().amax(dim=1) == LIMIT).all()
        torch.testing.assert_close(weights.bias, bias)


def test_a_norm_alone_is_one_exact_weight_for_each_channel() -> None:
    norm = with_statistics(nn.BatchNorm2d(5))
    (weights,) = Bank([Layer(None, norm)]).quantised()
    scale, shift = affine_of(norm)
    torch.testing.assert_close(weights.values.flatten() * weights.scales, scale)
    torch.testing.assert_close(weights.bias, shift)


def test_outputs_without_weights_stay_zero() -> None:
    conv = nn.Conv2d(2, 2, 1)
    nn.init.zeros_(conv.weight)
    (weights,) = Bank([Layer(conv, None)]).quantised()
    assert not weights.values.any()
    assert weights.scales.isfinite().all()


def test_a_bank_tells_weights_that_are_not_finite() -> None:
    norm = with_statistics(nn.BatchNorm2d(2))
    bank = Bank([Layer(nn.Conv2d(2, 2, 1), norm)])
    assert bank.is_finite()
    norm.running_var[0] = float("nan")
    assert not bank.is_finite()
    assert Bank([]).is_finite()
    assert Bank([]).quantised() == []
