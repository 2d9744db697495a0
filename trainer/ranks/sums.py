"""Sums and zeros of the nested numbers that states of several ranks are made of."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def summed(values: Sequence[Any]) -> Any:
    """Number by number: of numbers, tensors of one shape, tuples of one length, and mappings, of any keys.

    Raises:
        ValueError: tuples of different lengths.
    """
    first = values[0]
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: summed([value[key] for value in values if key in value]) for key in keys}
    if isinstance(first, tuple | list):
        return type(first)(summed(column) for column in zip(*values, strict=True))
    return sum(values[1:], start=first)


def zeroed(value: Any) -> Any:
    """The same nesting of numbers, all 0; a mapping within a mapping, whose keys are what was seen, is empty."""
    if isinstance(value, Mapping):
        return {key: {} if isinstance(one, Mapping) else zeroed(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(zeroed(one) for one in value)
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    return type(value)(0)
