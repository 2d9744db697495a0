"""int8 on a CPU: static quantisation whose ranges outlive the weights they were found with."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.data.normal import Normal
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

    Args:
        normal: of images in bytes, which may then be inputs everywhere in place of prepared ones. Normalised as they
            are quantised, their floats stay in the cache.

    Raises:
        Untraceable: the forward pass cannot be written down as a graph.
        ConfigError: this build of torch lacks the operators.
    """

    precision = "int8"

    def __init__(self, model: nn.Module, head: nn.Linear, normal: Normal | None = None) -> None:
        if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv2d_pointwise")):
            raise ConfigError("--precision int8: this build of torch has no oneDNN; choose --precision bf16 or float32")
        self.num_refreshed, self.refresh_s = 0, 0.0
        self.num_calibrated, self.calibrate_s = 0, 0.0
        self._model = unwrap(model)
        self._head = head
        self._normal = normal
        self.takes_bytes = normal is not None
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
        inputs = self._prepared(inputs[:: max(1, len(inputs) // MOST_CALIBRATED)][:MOST_CALIBRATED])
        with evaluating(self._model):
            if self._program is None:
                shapes = shapes_of(self._traced, inputs[:2])
                self._program = Program(self._traced, shapes, self._head, self._normal)
            self._program.calibrate(inputs)
            self._program.refresh()
        self.num_calibrated += 1
        self.calibrate_s += time.perf_counter() - started

    @torch.inference_mode()
    def __call__(self, inputs: Tensor) -> Any:
        if self._program is None and len(inputs):
            self.calibrate(inputs)
        with evaluating(self._model):
            program = self._program if self._program is not None and self._program.is_finite else None
            if program is None or not program.takes_bytes:
                inputs = self._prepared(inputs)
            if inputs.dtype != torch.uint8 and not bool(inputs.sum().isfinite()):
                program = None
            body: Callable[[Tensor], Any] = program or self._traced  # bytes would hide what is not finite
            if self._is_cut:
                return self._head(in_slices(body, inputs, slice_bytes=SLICE_BYTES))
            return body(inputs)

    def _prepared(self, inputs: Tensor) -> Tensor:
        return self._normal.prepare(inputs) if self._normal and inputs.dtype == torch.uint8 else inputs
