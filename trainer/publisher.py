"""Weights versions held for the scorers: one multi-tensor copy on the training thread, the rest off its path.

    training thread: push ──► a free slot is filled (its own memory, so nothing sent is ever live)
    I/O thread:      ready ──► announced ──► buckets served from the slot while sessions fetch it

A slot is reused only when it is not the newest version, no session fetches it and no frame of it is still queued;
with no free slot the push is skipped and counted. A slot left pinned by a dead session gets new memory: ZeroMQ frees
the old when it gives up the connection.
"""

import collections
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

import torch
import zmq
from torch import Tensor, nn

from common.buckets import bucket_checksum, bucket_span, flat_buffer
from common.protocol import Version
from common.waiting import Wait
from common.weights import Group, Manifest, copy_groups, grouped, manifest_of, model_tensors

Wire = Literal["float32", "bf16"]
WIRES: tuple[Wire, ...] = ("float32", "bf16")
NUM_SLOTS = 3


@dataclass
class Slot:
    """One preallocated wire buffer. `host` is what is sent; on CUDA `device` is filled first and copied over."""

    host: Tensor
    device: Tensor
    copies: dict[Wire, list[Group]]  # from the model into `device`
    wire: Wire = "float32"
    version: Version | None = None
    is_empty: bool = False  # a version that nobody fetches: nothing was copied
    copied: "torch.cuda.Event | None" = None  # the device-to-host copy is over
    filling: bool = False
    checksums: dict[int, int] = field(default_factory=dict)
    pins: set[int] = field(default_factory=set)  # sessions that fetch this version
    abandoned: bool = False  # a dead session left frames of it in its queue
    queued: list[zmq.MessageTracker] = field(default_factory=list)

    def is_queued(self) -> bool:
        self.queued = [tracker for tracker in self.queued if not tracker.done]
        return bool(self.queued)

    def is_whole(self) -> bool:
        """Whether its bytes are on the host."""
        return self.copied is None or self.copied.query()


class Publisher:
    """Holds the newest weights versions of a model in the dtype of the wire.

    Args:
        model: its parameters and buffers are copied at each push.
        head: the last linear layer, always sent in float32.
        generation: of this start of the trainer; versions are (generation, step).
        num_slots: buffers; one is the newest, one may be fetched, one is free to be filled. None where another rank
            pushes: then there is never a version here.
    """

    def __init__(
        self, model: nn.Module, head: nn.Linear | None, generation: int, *, num_slots: int = NUM_SLOTS
    ) -> None:
        self._tensors = list(model_tensors(model).values())
        self._device = self._tensors[0].device if self._tensors else torch.device("cpu")
        self._generation = generation
        self.manifests: dict[Wire, Manifest] = {wire: manifest_of(model, wire=wire, head=head) for wire in WIRES}
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._lock = threading.Lock()
        self._slots = [self._new_slot() for _ in range(num_slots)]
        self._newest: Slot | None = None
        self.skipped = 0
        self.pushed = 0
        self.stall_s = 0.0  # time the training thread spent in push

    def _new_slot(self) -> Slot:
        on_gpu = self._device.type == "cuda"
        total_bytes = self.manifests["float32"].total_bytes
        if on_gpu:
            host = torch.zeros(total_bytes, dtype=torch.uint8, pin_memory=True)
        else:
            host = torch.from_numpy(flat_buffer(total_bytes)).zero_()
        device = torch.zeros_like(host, device=self._device) if on_gpu else host
        if on_gpu:
            torch.cuda.current_stream(self._device).synchronize()  # zeroed before another stream writes to it
        copies = {wire: grouped(manifest.views(device), self._tensors) for wire, manifest in self.manifests.items()}
        return Slot(host, device, copies)

    def manifest(self, slot: Slot) -> Manifest:
        return self.manifests[slot.wire]

    # -- training thread ----------------------------------------------------------------------------------------------

    def push(self, step: int, *, wire: Wire = "float32", wait_s: float = 0.0, is_wanted: bool = True) -> Slot | None:
        """Copy the weights between two steps; returns the slot to hand to `announce`, or None if none was free.

        Args:
            step: optimiser steps completed.
            wire: dtype of the parameters on the wire; the head and the buffers keep their own.
            wait_s: how long to wait for a free slot; 0 skips this version.
            is_wanted: False where no scorer fetches weights: the version is announced and nothing is copied.
        """
        started = time.perf_counter()
        wait = Wait("a free buffer for the weights", wait_s, "scorers fetch the versions that fill them")
        while (slot := self._claim()) is None:
            if wait.is_over:
                self.skipped += 1
                if wait_s:
                    wait.report()
                return None
            time.sleep(0.001)  # only `fallback = wait` comes here: an exact run rather waits than skips
        slot.wire = wire
        slot.is_empty = not is_wanted
        if is_wanted:
            self._copy(slot)
        slot.version = Version(self._generation, step)
        self.pushed += 1
        self.stall_s += time.perf_counter() - started
        return slot

    def _copy(self, slot: Slot) -> None:
        copy_groups(slot.copies[slot.wire])
        if self._stream is not None:
            # The copy above is ordered with training on its stream; the transfer to the host runs beside the next step.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                slot.host.copy_(slot.device, non_blocking=True)
                slot.copied = torch.cuda.Event()
                slot.copied.record(self._stream)

    def _claim(self) -> Slot | None:
        with self._lock:
            for slot in self._slots:
                if slot is not self._newest and not slot.filling and not slot.pins and not slot.is_queued():
                    slot.filling = True
                    slot.version = None
                    slot.checksums.clear()
                    return slot
        return None

    # -- I/O thread ---------------------------------------------------------------------------------------------------

    def take_whole(self, filled: collections.deque[Slot]) -> Slot | None:
        """Take off the latest version that can be announced at once; any before it are given up. Never waits.

        On CUDA the copy to the host is queued behind the training steps that were launched before it.
        """
        latest: Slot | None = None
        while filled and filled[0].is_whole():
            if latest is not None:
                with self._lock:
                    latest.version, latest.filling = None, False
            latest = filled.popleft()
        return latest

    def announce(self, slot: Slot) -> Version:
        """Make a filled slot the newest version. Waits for the copy to the host if `take_whole` did not choose it."""
        if slot.copied is not None:
            slot.copied.synchronize()
        with self._lock:
            slot.filling = False
            self._newest = slot
            self._replace_abandoned()
            assert slot.version is not None, "announced before it was filled"
            return slot.version

    @property
    def newest(self) -> Slot | None:
        """The announced version that a scorer should fetch; None before the first."""
        return self._newest

    def open(self, version: Version, session: int) -> Slot | None:
        """Pin a version for a session's transfer; a session pins one at a time. None if it is no longer held."""
        with self._lock:
            for slot in self._slots:
                slot.pins.discard(session)
            for slot in self._slots:
                if slot.version == version and not slot.filling and not slot.is_empty:
                    slot.pins.add(session)
                    return slot
        return None

    def bucket(self, slot: Slot, bucket: int) -> tuple[memoryview, int]:
        """The bytes of a bucket, not copied, and their checksum."""
        start, stop = bucket_span(bucket, self.manifest(slot).total_bytes)
        data = slot.host.numpy().data[start:stop]
        if bucket not in slot.checksums:
            slot.checksums[bucket] = bucket_checksum(data)
        return data, slot.checksums[bucket]

    def sent(self, slot: Slot, session: int, tracker: zmq.MessageTracker | None, *, last: bool) -> None:
        """Note frames on their way; with the last bucket the session lets go of the slot."""
        with self._lock:
            if tracker is not None:
                slot.queued.append(tracker)
            if last:
                slot.pins.discard(session)

    def release(self, session: int, *, dead: bool) -> None:
        """A session ended. What it still holds in ZeroMQ's queues is abandoned to it if it is dead."""
        with self._lock:
            for slot in self._slots:
                slot.pins.discard(session)
                slot.abandoned |= dead and slot.is_queued()
            self._replace_abandoned()

    def _replace_abandoned(self) -> None:
        """New memory for slots whose frames a dead session may never take; the newest one's turn comes later."""
        for index, slot in enumerate(self._slots):
            if slot.abandoned and slot is not self._newest and not slot.filling and not slot.pins:
                if slot.is_queued():
                    self._slots[index] = self._new_slot()
                slot.abandoned = False
