"""The memory of one weights version: whose it is, who fetches it, and what of it is still to be sent."""

import collections
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import zmq
from torch import Tensor

from common.buckets import flat_buffer
from common.protocol import Buffer, Version
from common.weights import Group, Manifest, grouped

Wire = Literal["float32", "bf16"]


@dataclass(eq=False)
class Slot:
    """One preallocated wire buffer. `host` is what is sent; on CUDA `device` is filled first and copied over.

    A slot is held while a session fetches it or a frame of it is still to be sent: then nobody writes to it.
    """

    host: Tensor
    device: Tensor
    copies: dict[Wire, list[Group]]  # from the model into `device`
    wire: Wire = "float32"
    version: Version | None = None
    is_empty: bool = False  # a version that nobody fetches: nothing was copied
    copied: "torch.cuda.Event | None" = None  # the device-to-host copy is over
    filling: bool = False
    frames: dict[int, list[Buffer]] = field(default_factory=dict)  # of its messages, by bucket
    pins: set[int] = field(default_factory=set)  # sessions that fetch this version
    abandoned: bool = False  # frames of it may stay in a queue for good, or for too long
    queued: collections.deque[tuple[bytes, zmq.MessageTracker]] = field(default_factory=collections.deque)  # by peer
    moved_at: float = 0.0  # when a frame of it was asked for last, or left, by time.monotonic

    def is_queued(self) -> bool:
        """Whether any of its frames still is; looks at those that have left once, and at no more than it needs."""
        while self.queued and self.queued[0][1].done:
            self.queued.popleft()
            self.moved_at = time.monotonic()
        return bool(self.queued)

    def note_moves(self) -> None:
        """Keep `moved_at` right also where frames left while one before them stands still."""
        waiting = [frame for frame in self.queued if not frame[1].done]
        if len(waiting) < len(self.queued):
            self.queued, self.moved_at = collections.deque(waiting), time.monotonic()

    def is_held(self) -> bool:
        return bool(self.pins) or self.is_queued()

    def is_whole(self) -> bool:
        """Whether its bytes are on the host."""
        return self.copied is None or self.copied.query()


def new_slot(
    tensors: Sequence[Tensor], manifests: Mapping[Wire, Manifest], device: torch.device, *, old: Slot | None = None
) -> Slot:
    """Memory for a version of a model's tensors, cleared. Does not wait for what they are computed by.

    Args:
        old: a slot to replace, of which only the memory on the host is still read; that on a GPU is taken over.

    Raises:
        RuntimeError, MemoryError: there is no such memory.
    """
    total_bytes = manifests["float32"].total_bytes
    if device.type == "cuda":
        host = torch.zeros(total_bytes, dtype=torch.uint8, pin_memory=True)
        if old is not None:
            return Slot(host, old.device, old.copies)
        aside = torch.cuda.Stream(device)  # the current one has training steps to compute first
        with torch.cuda.stream(aside):
            filled = torch.zeros_like(host, device=device)
        aside.synchronize()  # cleared before another stream writes to it
    else:
        filled = host = torch.from_numpy(flat_buffer(total_bytes)).zero_()
    return Slot(host, filled, {wire: grouped(own.views(filled), list(tensors)) for wire, own in manifests.items()})
