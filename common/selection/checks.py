"""Checks of arguments that several files here share. B = candidates, b = drawn or selected ones, n = finite ones."""

import torch
from torch import Tensor


def check_vector(name: str, values: Tensor) -> None:
    """One dimension; `name` is the argument as its caller wrote it."""
    if values.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {tuple(values.shape)}")


def check_indices(name: str, values: Tensor) -> None:
    """A vector of integers."""
    check_vector(name, values)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {values.dtype}")


def check_same_length(name: str, values: Tensor, other_name: str, other: Tensor) -> None:
    if len(values) != len(other):
        raise ValueError(f"{name} and {other_name} must have one length, got {len(values)} and {len(other)}")


def check_not_negative(name: str, values: Tensor) -> None:
    """A vector whose finite values are >= 0. Waits for the device."""
    check_vector(name, values)
    wrong_B = (values < 0) & values.isfinite()
    if bool(wrong_B.any()):
        first = int(wrong_B.nonzero()[0, 0])
        raise ValueError(f"{name} must be >= 0, got {float(values[first])} at position {first}")


def check_count(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name} must be >= 0, got {value}")


def scaled(values_B: Tensor) -> Tensor:
    """Values >= 0 in float64, 0 for what is not finite, divided by a power of two near the largest.

    The division is exact but for the tiniest, and no sum or square of the result overflows. Ratios stay what they were.
    """
    values_B = torch.where(values_B.isfinite(), values_B.double(), 0.0)
    if not len(values_B):
        return values_B
    exponent = torch.frexp(values_B.amax()).exponent.clamp(-1000, 1000)
    return torch.ldexp(values_B, -exponent)
