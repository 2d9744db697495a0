"""A model's forward pass in the precision asked for."""

from typing import Any

import torch
from torch import Tensor, nn

from common.data.normal import Normal
from common.errors import ConfigError
from common.models import evaluating, unwrap
from common.precision.form import Form
from common.precision.int8 import Int8Form
from common.precision.low import LowForm
from common.precision.trace import Untraceable


class Exact:
    """See `common.precision.form.Form`: the master as it is, in eval mode, bit by bit."""

    precision = "float32"
    takes_bytes = False

    def __init__(self, model: nn.Module) -> None:
        self._model = unwrap(model)
        self.num_refreshed, self.refresh_s = 0, 0.0
        self.num_calibrated, self.calibrate_s = 0, 0.0

    def refresh(self) -> None:
        self.num_refreshed += 1

    def calibrate(self, inputs: Tensor) -> None:
        """Nothing to do."""

    def __call__(self, inputs: Tensor) -> Any:
        with evaluating(self._model):
            return self._model(inputs)


def compiles(precision: str) -> bool:
    """Whether the forward pass in this precision can be captured."""
    return precision in ("bf16", "fp16")


def check_compile(device: torch.device) -> None:
    """Raises ConfigError where no forward pass can be captured."""
    if device.type != "cuda":
        raise ConfigError(
            f"--compile: forward passes are captured on CUDA devices, the model is on {device}; leave it off"
        )


def make_form(
    model: nn.Module, head: nn.Linear, precision: str, *, compile: bool = False, normal: Normal | None = None
) -> Form:
    """The forward pass of a model in a precision; the model stays the master of its weights.

    Args:
        model: wrapped or not, on its device, its parameters in float32.
        head: its last linear layer; stays the same object, in float32.
        precision: "float32", "bf16", "fp16" or "int8"; see `common.precision.auto` for "auto".
        compile: capture the pass in a CUDA graph.
        normal: of images in bytes, which the form then takes, too, if it is one that can.

    Raises:
        ConfigError: this precision is not to be had on the model's device, or not with this model.
    """
    device = head.weight.device
    if compile:
        check_compile(device)
    if compile and not compiles(precision):
        raise ConfigError(f"--compile goes with --precision bf16 or fp16, got {precision}")
    if precision == "float32":
        return Exact(model)
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16: for CUDA devices, the model is on the CPU; choose bf16, int8 or auto")
    if precision in ("bf16", "fp16"):
        return LowForm(model, head, precision, compile=compile)
    if precision == "int8":
        return _int8_form(model, head, normal)
    raise ConfigError(f"--precision must be float32, bf16, fp16 or int8, got {precision!r}")


def _int8_form(model: nn.Module, head: nn.Linear, normal: Normal | None) -> Form:
    if head.weight.device.type != "cpu":
        raise ConfigError(
            f"--precision int8: for the CPU, the model is on {head.weight.device}; choose bf16, fp16 or auto"
        )
    try:
        return Int8Form(model, head, normal)
    except Untraceable as error:
        raise ConfigError(f"--precision int8: {error}; choose --precision bf16 or float32") from error
