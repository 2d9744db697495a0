"""Weights as one flat buffer: its layout (the manifest), the copy out of a model and the copy into one.

    trainer: model tensors ── snapshot (one multi-tensor copy) ──► flat buffer ── buckets + checksums ──► wire
    scorer:  wire ── verified bucket by bucket ──► staging buffer ── becomes the model's memory, or is copied into it

Parameters *and* buffers travel: BatchNorm statistics of another version would change every score. Tensors start at
multiples of 64 bytes, so that views of the buffer are as aligned as torch's own allocations.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from common.buckets import ALIGNMENT_BYTES, flat_buffer
from common.errors import ProtocolError
from common.models import unwrap
from common.protocol import DTYPE_BYTES, TensorSpec

MAX_SEEN = 4  # buffers of which a loader keeps the views
Group = tuple[list[Tensor], list[Tensor]]  # destinations and sources of one pair of dtypes
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
        typed = {name: flat.view(DTYPES[name]) for name in {row.dtype for row in self.rows}}
        starts = {name: whole.storage_offset() for name, whole in typed.items()}
        return [
            typed[row.dtype].as_strided(row.shape, stride, starts[row.dtype] + offset // DTYPE_BYTES[row.dtype])
            for row, stride, offset in zip(self.rows, self._strides, self.offsets, strict=False)
        ]

    @cached_property
    def _strides(self) -> list[tuple[int, ...]]:
        """Of contiguous tensors, in elements."""
        return [tuple(math.prod(row.shape[axis + 1 :]) for axis in range(len(row.shape))) for row in self.rows]

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
    return {name: tensor.detach() for name, tensor in _live_tensors(model).items()}


def _live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The same, as the model holds them."""
    tensors: dict[str, Tensor] = unwrap(model).state_dict(keep_vars=True)
    return tensors


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
    copy_groups(grouped(destinations, sources))


def grouped(destinations: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Group]:
    """Pairs to copy, by their dtypes: with mixed dtypes in a list, CUDA copies tensor by tensor."""
    groups: dict[tuple[torch.dtype, torch.dtype], Group] = {}
    for destination, source in zip(destinations, sources, strict=True):
        group = groups.setdefault((destination.dtype, source.dtype), ([], []))
        group[0].append(destination)
        group[1].append(source)
    return list(groups.values())


def copy_groups(groups: Sequence[Group]) -> None:
    """What `grouped` returned, as often as it is wanted."""
    with torch.no_grad():
        for destinations, sources in groups:
            torch._foreach_copy_(destinations, sources)


class FlatLoader:
    """Brings flat buffers into a model, version after version; what stays the same is worked out once.

    The model's tensors move into one buffer of its own layout, so that a version of the same layout is a single copy,
    or none where the model may move into the buffer that it came in.

    Args:
        model: on the device where it stays; its tensors stay the same objects, as whoever else holds them relies on.
    """

    def __init__(self, model: nn.Module) -> None:
        own = model_tensors(model)
        self._live = list(_live_tensors(model).values())
        self._home: Tensor | None = None
        self._manifest = self._own = manifest_of(model)
        if own and all(tensor.is_contiguous() for tensor in own.values()):
            device = next(iter(own.values())).device
            if device.type == "cpu":
                self._home = torch.from_numpy(flat_buffer(self._own.total_bytes))
            else:
                self._home = torch.empty(self._own.total_bytes, dtype=torch.uint8, device=device)
            for tensor, view in zip(self._live, self._own.views(self._home), strict=True):
                tensor.data = view.copy_(tensor.data)
        self._tensors = list(model_tensors(model).values())
        self._seen: dict[int, list[Tensor]] = {}  # views of buffers, by their addresses
        self._received: tuple[Tensor, list[Group]] | None = None  # on another device a buffer arrives there as a whole

    @property
    def can_move(self) -> bool:
        """Whether `swap` moves the model into a buffer of its own layout on the CPU, instead of copying it."""
        return self._home is not None and self._home.device.type == "cpu"

    def swap(self, rows: tuple[TensorSpec, ...], flat: Tensor) -> Tensor:
        """As `load`, but `flat` may become the model's memory. Returns what is free now: `flat` or what the model left.

        Nothing is copied where `flat` is laid out and aligned as the model's own memory and on the same device.
        """
        home = self._home
        if home is None or rows != self._own.rows or home.device != flat.device or flat.data_ptr() % ALIGNMENT_BYTES:
            self.load(rows, flat)
            return flat
        self._home, self._tensors = flat, self._views(flat)
        for tensor, view in zip(self._live, self._tensors, strict=True):
            tensor.data = view
        return home

    def _views(self, flat: Tensor) -> list[Tensor]:
        """The model's tensors in `flat`; a few buffers come in turns."""
        views = self._seen.get(flat.data_ptr())
        if views is None:
            if len(self._seen) == MAX_SEEN:
                self._seen.clear()
            views = self._seen[flat.data_ptr()] = self._own.views(flat)  # which keep the memory at its address
        return views

    def load(self, rows: tuple[TensorSpec, ...], flat: Tensor) -> None:
        """Copy `flat` ((total_bytes,) uint8 on the CPU, laid out as `rows` say) into the model."""
        if self._manifest.rows != rows:
            self._manifest, self._received = Manifest(rows), None
        if self._home is not None and rows == self._own.rows:
            self._home.copy_(flat)
        elif not self._tensors or self._tensors[0].device.type == "cpu":
            copy_tensors(self._tensors, self._manifest.views(flat))
        else:
            self._load_on_device(flat, self._tensors[0].device)

    def _load_on_device(self, flat: Tensor, device: torch.device) -> None:
        if self._received is None:
            received = torch.empty_like(flat, device=device)
            self._received = received, grouped(self._tensors, self._manifest.views(received))
        received, groups = self._received
        received.copy_(flat)
        copy_groups(groups)


def load_flat(model: nn.Module, manifest: Manifest, flat: Tensor) -> None:
    """Copy the tensors of a flat buffer into the model, in place, once."""
    copy_tensors(list(model_tensors(model).values()), manifest.views(flat))
