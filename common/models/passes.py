"""Contexts around a forward pass that scores: its precision, the head's dtype, and what goes into the head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def catching_inputs_of(head: nn.Linear, wanted: bool) -> Iterator[list[Tensor]]:
    """A list to which the head's inputs are appended, for what runs inside."""
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, args: caught.append(args[0])) if wanted else None
    try:
        yield caught
    finally:
        if hook is not None:
            hook.remove()


@contextmanager
def computing_in(precision: str, head: nn.Linear) -> Iterator[None]:
    """Autocast for a low precision, with a head that steps out of it."""
    if precision == "float32":
        yield
        return
    with in_float32(head), torch.autocast(head.weight.device.type, torch.bfloat16):
        yield


@contextmanager
def in_float32(head: nn.Linear) -> Iterator[None]:
    """Inside, calls of the head compute in its own dtype, whatever autocast says; its hooks are called as ever."""
    forward = head.forward
    is_own = "forward" in head.__dict__
    head.forward = lambda features: _without_autocast(forward, features.to(head.weight.dtype))  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        if is_own:
            head.forward = forward  # type: ignore[method-assign]
        else:
            del head.forward


def _without_autocast(forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return forward(features)


@contextmanager
def casting_to(head: nn.Linear, model: nn.Module) -> Iterator[None]:
    """Inputs of the head in its own dtype; a hook only where some other parameter has a different one."""
    dtype = head.weight.dtype
    if all(parameter.dtype == dtype for parameter in model.parameters()):
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: tuple(value.to(dtype) for value in args))
    try:
        yield
    finally:
        hook.remove()
