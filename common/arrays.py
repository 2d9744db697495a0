"""Between tensors and the typed arrays of the wire, without copies."""

import numpy as np
import torch
from torch import Tensor

from common.protocol import Array


def as_array(tensor: Tensor) -> Array:
    """Describe a CPU tensor of any shape; shares its memory if it is contiguous."""
    if tensor.dtype == torch.bfloat16:
        bits = tensor.view(torch.int16)  # numpy has no bfloat16
        return Array("bfloat16", tuple(tensor.shape), Array.of(bits.numpy()).buffer)
    return Array.of(tensor.numpy())


def as_tensor(array: Array) -> Tensor:
    """A tensor over a received buffer, which it keeps alive; copied where that is read-only or not aligned."""
    if array.dtype == "bfloat16":
        bits = np.frombuffer(array.buffer, dtype=np.int16).reshape(array.shape)
        return torch.from_numpy(_writable(bits)).view(torch.bfloat16)
    return torch.from_numpy(_writable(array.as_numpy()))


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.behaved else array.copy()  # behaved: writeable and aligned
