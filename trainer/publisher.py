"""Weights versions held for the scorers: one multi-tensor copy on the training thread, the rest off its path.

    training thread: push ──► a free slot is filled (its own memory, so nothing sent is ever live)
    I/O thread:      ready ──► announced ──► buckets served from the slot while sessions fetch it

Memory: a slot is as large as the model in float32, on a GPU twice, there and pinned on the host; `Slots` says how many
there are, and which is free.
"""

import collections
import time

import torch
from torch import nn

from common.buckets import bucket_checksum, bucket_span, num_buckets
from common.protocol import Buffer, Version, Weights, encode
from common.waiting import Wait
from common.weights import Manifest, copy_groups, manifest_of, model_tensors
from trainer.slot import Slot, Wire, new_slot
from trainer.slots import Slots

WIRES: tuple[Wire, ...] = ("float32", "bf16")
NUM_SLOTS = 3


class Publisher:
    """Holds the newest weights versions of a model in the dtype of the wire.

    Args:
        model: its parameters and buffers are copied at each push.
        head: the last linear layer, always sent in float32.
        generation: of this start of the trainer; versions are (generation, step).
        num_slots: buffers; one is the newest, one may be fetched, one is free to be filled; one more comes when it is
            needed. None where another rank pushes: then there is never a version here.
        silence_s: a version that is fetched and of which nothing moves for so long is the first to give way.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Linear | None,
        generation: int,
        *,
        num_slots: int = NUM_SLOTS,
        silence_s: float = 10.0,
    ) -> None:
        self._tensors = list(model_tensors(model).values())
        self._device = self._tensors[0].device if self._tensors else torch.device("cpu")
        self._generation = generation
        self.manifests: dict[Wire, Manifest] = {wire: manifest_of(model, wire=wire, head=head) for wire in WIRES}
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self.slots = Slots(num_slots, self._new_slot, silence_s=silence_s)
        self.skipped = 0
        self.pushed = 0
        self.stall_s = 0.0  # time the training thread spent in push

    def _new_slot(self, old: Slot | None) -> Slot:
        return new_slot(self._tensors, self.manifests, self._device, old=old)

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
        if (slot := self.slots.claim() or self._awaited(wait_s)) is None:
            self.skipped += 1
            return None
        slot.wire = wire
        slot.is_empty = not is_wanted
        if is_wanted:
            self._copy(slot)
        slot.version = Version(self._generation, step)
        self.pushed += 1
        self.stall_s += time.perf_counter() - started
        return slot

    def _awaited(self, wait_s: float) -> Slot | None:
        """The slot that gets free within so many seconds: only `fallback = wait` rather waits than skips."""
        if not wait_s:
            return None
        wait = Wait("a free buffer for the weights", wait_s, "scorers fetch the versions that fill them")
        while (slot := self.slots.claim()) is None:
            if wait.is_over:
                wait.report()
                return None
            time.sleep(0.001)
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

    # -- I/O thread ---------------------------------------------------------------------------------------------------

    def take_whole(self, filled: collections.deque[Slot]) -> Slot | None:
        """Take off the latest version that can be announced at once; any before it are given up. Never waits.

        On CUDA the copy to the host is queued behind the training steps that were launched before it.
        """
        latest: Slot | None = None
        while filled and filled[0].is_whole():
            if latest is not None:
                self.slots.give_up(latest)
            latest = filled.popleft()
        return latest

    def announce(self, slot: Slot) -> Version:
        """Make a filled slot the newest version. Waits for the copy to the host if `take_whole` did not choose it."""
        if slot.copied is not None:
            slot.copied.synchronize()
        assert slot.version is not None, "announced before it was filled"
        self.slots.announce(slot)
        return slot.version

    def bucket(self, slot: Slot, bucket: int) -> Weights:
        """The message that hands out a bucket, whose bytes are not copied; with the manifest in the first one."""
        assert slot.version is not None, "handed out before it was filled"
        manifest = self.manifest(slot)
        start, stop = bucket_span(bucket, manifest.total_bytes)
        data = slot.host.numpy().data[start:stop]
        return Weights(
            version=slot.version,
            bucket=bucket,
            num_buckets=num_buckets(manifest.total_bytes),
            total_bytes=manifest.total_bytes,
            checksum=bucket_checksum(data),
            manifest=manifest.rows if bucket == 0 else None,
            buffer=data,
        )

    def frames(self, slot: Slot, bucket: int) -> list[Buffer]:
        """Of that message: made once for all the scorers that fetch the version."""
        if bucket not in slot.frames:
            slot.frames[bucket] = encode(self.bucket(slot, bucket))
        return slot.frames[bucket]
