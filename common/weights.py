"""Weights as one flat buffer: its layout (the manifest), the copy out of a model and the copy into one.

    trainer: model tensors ── snapshot (one multi-tensor copy) ──► flat buffer ── buckets + CRC-32 ──► wire
    scorer:  wire ── verified bucket by bucket ──► staging buffer ── load (one multi-tensor copy) ──► model tensors

Parameters *and* buffers travel: BatchNorm statistics of another version would change every score. Tensors start at
multiples of 64 bytes, so that views of the buffer are as aligned as torch's own allocations.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from common.errors import ProtocolError
from common.models import unwrap
from common.protocol import DTYPE_BYTES, TensorSpec

ALIGNMENT_BYTES = 64
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_BYTES}


@dataclass(frozen=True)
class Manifest:
    """Names, wire dtypes and shapes of the tensors in a flat buffer, in order."""

    rows: tuple[TensorSpec, ...]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each tensor, then the total: len(rows) + 1 entries."""
        offsets = [0]
        for row in self.rows:
            offsets.append(offsets[-1] + -(-row.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        return tuple(offsets)

    @property
    def total_bytes(self) -> int:
        return self.offsets[-1]

    def views(self, flat: Tensor) -> list[Tensor]:
        """Each tensor of the manifest as a view of `flat` ((total_bytes,) uint8)."""
        views = []
        for row, offset in zip(self.rows, self.offsets, strict=False):
            views.append(flat[offset : offset + row.nbytes].view(DTYPES[row.dtype]).view(row.shape))
        return views

    def check_matches(self, own: "Manifest") -> None:
        """Raise ProtocolError unless these weights fit a model whose manifest is `own`.

        A floating-point tensor may arrive in another floating-point dtype (the wire's); nothing else may differ.
        """
        if len(self.rows) != len(own.rows):
            raise ProtocolError(f"weights: {len(self.rows)} tensors announced, the model has {len(own.rows)}")
        for (name, dtype, shape), (own_name, own_dtype, own_shape) in zip(self.rows, own.rows, strict=True):
            if name != own_name:
                raise ProtocolError(f"weights: tensor {name!r} where the model has {own_name!r}")
            if shape != own_shape:
                raise ProtocolError(f"weights: {name} has shape {shape}, the model's has {own_shape}")
            if dtype != own_dtype and not (DTYPES[dtype].is_floating_point and DTYPES[own_dtype].is_floating_point):
                raise ProtocolError(f"weights: {name} has dtype {dtype}, the model's has {own_dtype}")


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, detached, in the model's own order; wrappers are seen through."""
    return {name: tensor.detach() for name, tensor in unwrap(model).state_dict(keep_vars=True).items()}


def manifest_of(model: nn.Module, *, wire: str = "float32", head: nn.Linear | None = None) -> Manifest:
    """Layout of a model's weights on the wire.

    Args:
        wire: "float32" sends every tensor in its own dtype; "bf16" sends float32 parameters as bfloat16, but never the
            head (bfloat16 ties the top two classes) nor buffers (BatchNorm statistics).
        head: the last linear layer, exempt from bf16.
    """
    tensors = model_tensors(model)
    parameters = dict(unwrap(model).named_parameters(remove_duplicate=False))
    head_parameters = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    rows = []
    for name, tensor in tensors.items():
        dtype = tensor.dtype
        parameter = parameters.get(name)
        if wire == "bf16" and dtype == torch.float32 and parameter is not None and id(parameter) not in head_parameters:
            dtype = torch.bfloat16
        rows.append(TensorSpec(name, str(dtype).removeprefix("torch."), tuple(tensor.shape)))
    return Manifest(tuple(rows))


def model_fingerprint(model: nn.Module) -> str:
    """Digest of the names, dtypes and shapes of a model's weights; equal where weights can be exchanged."""
    return hashlib.blake2b(repr(manifest_of(model).rows).encode(), digest_size=16).hexdigest()


def copy_tensors(destinations: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its destination, converting dtypes, in as few kernel launches as torch has for it."""
    if len(destinations) == 0:
        return  # which the multi-tensor copy refuses
    with torch.no_grad():
        torch._foreach_copy_(list(destinations), list(sources))


def load_flat(model: nn.Module, manifest: Manifest, flat: Tensor) -> None:
    """Copy the tensors of a flat buffer into the model, in place."""
    copy_tensors(list(model_tensors(model).values()), manifest.views(flat))
