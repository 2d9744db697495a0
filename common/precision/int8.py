"""int8 on a CPU: static quantisation whose ranges outlive the weights they were found with."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.models import evaluating, unwrap
from common.precision.head import cut_before
from common.precision.patterns import without_mutation
from common.precision.program import Program
from common.precision.ranges import shapes_of
from common.precision.slices import in_slices
from common.precision.trace import trace

# Of float32 inputs: 320 images of (3, 32, 32). Bytes take a quarter of the cache, and calls of operators cost as much
# as with floats; from 128 to 320 images at a time are as fast.
SLICE_BYTES = 320 * 3 * 32 * 32 * 4
MOST_CALIBRATED = 128  # samples of a batch that ranges are taken from


class Int8Form:
    """See `common.precision.form.Form`. The head, and what has no int8 operator, computes in float32.

    The first call calibrates on its own inputs where `calibrate` has not been called.

    Raises:
        Untraceable: the forward pass cannot be written down as a graph.
        ConfigError: this build of torch lacks the operators.
    """

    precision = "int8"

    def __init__(self, model: nn.Module, head: nn.Linear) -> None:
        if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv2d_pointwise")):
            raise ConfigError("--precision int8: this build of torch has no oneDNN; choose --precision bf16 or float32")
        self.num_refreshed, self.refresh_s = 0, 0.0
        self.num_calibrated, self.calibrate_s = 0, 0.0
        self._model = unwrap(model)
        self._head = head
        self._traced = trace(model, head)
        without_mutation(self._traced)
        self._is_cut = cut_before(head, self._traced)
        self._program: Program | None = None

    @torch.inference_mode()
    def refresh(self) -> None:
        started = time.perf_counter()
        if self._program is not None:
            self._program.refresh()
        self.num_refreshed += 1
        self.refresh_s += time.perf_counter() - started

    @torch.inference_mode()
    def calibrate(self, inputs: Tensor) -> None:
        """Take ranges from up to 128 of these samples; the weights are packed anew."""
        started = time.perf_counter()
        inputs = inputs[:: max(1, len(inputs) // MOST_CALIBRATED)][:MOST_CALIBRATED]
        with evaluating(self._model):
            if self._program is None:
                self._program = Program(self._traced, shapes_of(self._traced, inputs[:2]), self._head)
            self._program.calibrate(inputs)
            self._program.refresh()
        self.num_calibrated += 1
        self.calibrate_s += time.perf_counter() - started

    @torch.inference_mode()
    def __call__(self, inputs: Tensor) -> Any:
        if self._program is None and len(inputs):
            self.calibrate(inputs)
        with evaluating(self._model):
            if self._program is None or not self._program.is_finite or not bool(inputs.sum().isfinite()):
                body: Callable[[Tensor], Any] = self._traced  # bytes would hide what is not finite
            else:
                body = self._program
            if self._is_cut:
                return self._head(in_slices(body, inputs, slice_bytes=SLICE_BYTES))
            return body(inputs)
