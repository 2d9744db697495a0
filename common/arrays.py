"""Between tensors and the typed arrays of the wire, without copies."""

import torch
from torch import Tensor

from common.protocol import Array


def as_array(tensor: Tensor) -> Array:
    """Describe a CPU tensor of any shape; shares its memory if it is contiguous."""
    flat = tensor.detach().contiguous().view(-1)
    buffer = flat.view(torch.uint8).numpy().data if flat.numel() else b""
    return Array(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), buffer)


def as_tensor(array: Array) -> Tensor:
    """A tensor over a received buffer, which it keeps alive; a read-only buffer is copied."""
    dtype: torch.dtype = getattr(torch, array.dtype)
    if array.nbytes == 0:
        return torch.empty(array.shape, dtype=dtype)
    view = memoryview(array.buffer)
    return torch.frombuffer(bytearray(view) if view.readonly else view, dtype=dtype).view(array.shape)
