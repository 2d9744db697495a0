"""Weights of all layers in int8, made from the master's in a few operations on many layers at a time.

O = outputs of a layer, S = outputs of several layers together, K = weights of one output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.precision.hardware import cpu_has_int8

# Without instructions for 8-bit products, pairs of them are summed in 16 bits: 2 x 255 x 63 still fits.
LIMIT = 127 if cpu_has_int8() else 63
LEAST_SCALE = 1e-12


@dataclass(frozen=True)
class Layer:
    """norm(layer(x)), either of which may be missing; a norm alone is a layer with one weight of 1 for each output."""

    layer: nn.Conv2d | nn.Linear | None
    norm: _BatchNorm | None

    @property
    def num_outputs(self) -> int:
        if self.layer is not None:
            return len(self.layer.weight)
        assert self.norm is not None, "neither layer nor norm"
        return self.norm.num_features


@dataclass(frozen=True)
class Int8Weights:
    """Of one layer: `values * scales` are its weights, `bias` is added.

    Attributes:
        values: (O, I, *kernel) int8 in [-127, 127].
        scales: (O,) float32, > 0.
        bias: (O,) float32.
    """

    values: Tensor
    scales: Tensor
    bias: Tensor


class Bank:
    """Knows the layers, and quantises their present weights, each output by its own largest."""

    def __init__(self, layers: list[Layer]) -> None:
        # Layers with rows of one length lie side by side and are computed together.
        self._layers = sorted(enumerate(layers), key=lambda item: _row_length(item[1]))
        self._eps_S = torch.cat(
            [torch.full((layer.num_outputs,), layer.norm.eps if layer.norm else 0.0) for _, layer in self._layers]
            or [torch.empty(0)]
        )
        self._one, self._zero = {}, {}
        for _, layer in self._layers:
            self._one[layer.num_outputs] = torch.ones(layer.num_outputs)
            self._zero[layer.num_outputs] = torch.zeros(layer.num_outputs)

    @torch.no_grad()
    def quantised(self) -> list[Int8Weights]:
        """The master's weights as they are now, in the order in which the layers were given."""
        if not self._layers:
            return []
        made: list[tuple[int, Int8Weights]] = []
        scale_S, shift_S = self._affine()
        start = 0
        while start_layer := self._layers[len(made) :]:
            length = _row_length(start_layer[0][1])
            group = [item for item in start_layer if _row_length(item[1]) == length]
            rows_OK = torch.cat([self._rows(layer, length) for _, layer in group])
            part = slice(start, start + len(rows_OK))
            rows_OK = rows_OK * scale_S[part, None]
            scales_O = rows_OK.abs().amax(dim=1).div_(LIMIT).clamp_min_(LEAST_SCALE)
            values_OK = rows_OK.div_(scales_O[:, None]).round_().to(torch.int8)
            sizes = [layer.num_outputs for _, layer in group]
            parts = zip(group, values_OK.split(sizes), scales_O.split(sizes), shift_S[part].split(sizes), strict=True)
            for (index, layer), values, scales, bias in parts:
                shape = layer.layer.weight.shape if layer.layer is not None else (layer.num_outputs, 1, 1, 1)
                made.append((index, Int8Weights(values.view(shape), scales, bias)))
            start = part.stop
        return [weights for _, weights in sorted(made, key=lambda item: item[0])]

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether the master's weights, biases and statistics are, as they are now."""
        tensors = [layer.layer.weight for _, layer in self._layers if layer.layer is not None]
        tensors = [*tensors, *self._affine()] if self._layers else []
        return not tensors or bool(torch.stack(torch._foreach_norm(tensors, float("inf"))).isfinite().all())

    def _affine(self) -> tuple[Tensor, Tensor]:
        """(S,) each: outputs without bias times the first, plus the second."""
        columns: list[list[Tensor]] = [[], [], [], [], []]
        for _, layer in self._layers:
            one, zero, norm = self._one[layer.num_outputs], self._zero[layer.num_outputs], layer.norm
            bias = zero if layer.layer is None or layer.layer.bias is None else layer.layer.bias
            row = (
                bias,
                one if norm is None or norm.weight is None else norm.weight,
                zero if norm is None or norm.bias is None else norm.bias,
                zero if norm is None or norm.running_mean is None else norm.running_mean,
                one if norm is None or norm.running_var is None else norm.running_var,
            )
            for column, value in zip(columns, row, strict=True):
                column.append(value.detach().float())
        bias_S, weight_S, shift_S, mean_S, var_S = (torch.cat(column) for column in columns)
        scale_S = weight_S * torch.rsqrt(var_S + self._eps_S)
        return scale_S, torch.addcmul(shift_S, bias_S - mean_S, scale_S)

    def _rows(self, layer: Layer, length: int) -> Tensor:
        if layer.layer is None:
            return self._one[layer.num_outputs][:, None]
        return layer.layer.weight.detach().float().reshape(-1, length)


def _row_length(layer: Layer) -> int:
    return 1 if layer.layer is None else layer.layer.weight[0].numel()
