"""What a model's forward pass looks like to those who score, whatever it computes in."""

from typing import Any, Protocol

from torch import Tensor


class Form(Protocol):
    """A model's forward pass in one precision. Follows the master model's parameters when told to.

    Attributes:
        precision: what it computes in: "float32", "bf16", "fp16" or "int8".
        takes_bytes: whether inputs may also be images in bytes that are not prepared.
        num_refreshed, refresh_s: refreshes so far, and the seconds they took together.
        num_calibrated, calibrate_s: the same of calibrations.
    """

    precision: str
    takes_bytes: bool
    num_refreshed: int
    refresh_s: float
    num_calibrated: int
    calibrate_s: float

    def refresh(self) -> None:
        """Take over the master's parameters and buffers, which have changed. Milliseconds: nothing is traced again."""

    def calibrate(self, inputs: Tensor) -> None:
        """Take the ranges of activations from prepared (B, ...) float32 inputs, B >= 1. Does something in int8 only."""

    def __call__(self, inputs: Tensor) -> Any:
        """What the master's forward pass in eval mode returns for (B, ...) inputs; logits in float32."""
