"""bf16 and fp16: BatchNorm folded, channels-last, convolutions fused, the head in float32.

| device | bf16 computes in | fp16 |
|---|---|---|
| CUDA | bfloat16 | float16 |
| CPU with bfloat16 instructions (AMX, AVX512_BF16) | bfloat16 | refused |
| any other CPU | float32, since bfloat16 is emulated there, slower than float32 | refused |

On that last kind of CPU the speed comes of folding, fusing, layout and slices alone, and the scores are at least as
fine as bfloat16's. On the wire the weights of a bf16 scorer are rounded all the same.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.models import evaluating, unwrap
from common.models.passes import in_float32
from common.precision.capture import Captured
from common.precision.fused import FusedConv
from common.precision.fusing import fuse
from common.precision.hardware import cpu_has_bf16
from common.precision.head import cut_before
from common.precision.patterns import without_mutation
from common.precision.slices import in_slices
from common.precision.trace import Untraceable, trace

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class LowForm:
    """See `common.precision.form.Form`. What is no convolution runs under autocast with the master's own parameters.

    A model that cannot be traced runs as it is, under autocast.

    Args:
        precision: "bf16" or "fp16".
        compile: capture what is before the head in a CUDA graph.

    Raises:
        ConfigError: the model's pass cannot be captured.
    """

    def __init__(self, model: nn.Module, head: nn.Linear, precision: str, *, compile: bool = False) -> None:
        self.precision = precision
        self.takes_bytes = False
        self.num_refreshed, self.refresh_s = 0, 0.0
        self.num_calibrated, self.calibrate_s = 0, 0.0
        self._model = unwrap(model)
        self._head = head
        self._device = head.weight.device
        self._dtype = computing_dtype(precision, self._device)
        self._fused: list[FusedConv] = []
        self._is_cut = False
        self._graph: nn.Module = self._model
        try:
            traced = trace(model, head)
            without_mutation(traced)
            self._fused = fuse(traced, self._dtype)
            self._is_cut = cut_before(head, traced)
            self._graph = traced
        except Untraceable as error:
            if compile:
                raise ConfigError(f"--compile: {error}; leave it off") from error
        self._features: Callable[[Tensor], Tensor] = self._body
        if compile:
            if not self._is_cut:
                kind = type(self._model).__name__
                raise ConfigError(f"--compile: {kind} returns something else than its head's output; leave it off")
            self._features = Captured(self._body)
        elif self._device.type == "cpu":
            self._features = partial(in_slices, self._body)

    def refresh(self) -> None:
        started = time.perf_counter()
        for operator in self._fused:
            operator.refresh()
        self.num_refreshed += 1
        self.refresh_s += time.perf_counter() - started

    def calibrate(self, inputs: Tensor) -> None:
        """Nothing to do."""

    def __call__(self, inputs: Tensor) -> Any:
        with evaluating(self._model):
            if self._is_cut:
                return self._head(self._features(inputs).to(self._head.weight.dtype))
            with in_float32(self._head):
                return self._body(inputs)

    def _body(self, inputs: Tensor) -> Any:
        """What is before the head; all of the model where it could not be cut there."""
        if self._fused and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self._dtype == torch.float32:
            return self._graph(inputs)
        # Without a cache: a graph must not hold casts of earlier weights.
        with torch.autocast(self._device.type, self._dtype, cache_enabled=False):
            return self._graph(inputs)


def computing_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What a low precision computes in on a device."""
    if device.type == "cpu" and not cpu_has_bf16():
        return torch.float32
    return DTYPES[precision]
