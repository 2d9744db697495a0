"""Weights versions held for the scorers: one multi-tensor copy on the training thread, the rest off its path.

    training thread: push ──► a free slot is filled (its own memory, so nothing sent is ever live)
    I/O thread:      ready ──► announced ──► buckets served from the slot while sessions fetch it

A slot is reused only when it is not the newest version, no session fetches it and no frame of it is still queued; with
no free slot the push is skipped and counted, and `make_room` sees to the next one. A slot whose frames may stay queued
gets new memory: ZeroMQ frees the old when it has sent them or gives up the connection.

Memory: a slot is as large as the model in float32, on a GPU twice, there and pinned on the host. There are `NUM_SLOTS`,
one more once two older versions are fetched at the same time, and at most `MAX_LEFT` are left to ZeroMQ.
"""

import collections
import logging
import threading
import time

import torch
import zmq
from torch import nn

from common.buckets import WINDOW, bucket_checksum, bucket_span
from common.protocol import Version
from common.sparing_log import SparingLog
from common.waiting import Wait
from common.weights import Manifest, copy_groups, manifest_of, model_tensors
from trainer.slot import Slot, Wire, new_slot

log = logging.getLogger(__name__)

WIRES: tuple[Wire, ...] = ("float32", "bf16")
NUM_SLOTS = 3
NO_MEMORY = (RuntimeError, MemoryError)  # torch's is the former
FEW = WINDOW // 2  # frames that may have been read, though nobody was told yet
LOG_EVERY_S = 10.0
MAX_LEFT = 4  # buffers that are left to ZeroMQ until it has sent or dropped what it has of them


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
        self._lock = threading.Lock()
        self._slots = [self._new_slot() for _ in range(num_slots)]
        self._max_slots, self._silence_s = num_slots + 1, silence_s
        self._left: list[Slot] = []  # given up, with frames that ZeroMQ has not sent
        self._is_refused = False  # a push found no free slot
        self._log = SparingLog(log, LOG_EVERY_S)
        self._newest: Slot | None = None
        self.skipped = 0
        self.pushed = 0
        self.stall_s = 0.0  # time the training thread spent in push

    def _new_slot(self, old: Slot | None = None) -> Slot:
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
                if self._is_free(slot):
                    slot.filling = True
                    slot.version = None
                    slot.checksums.clear()
                    return slot
            self._is_refused = True
        return None

    def _is_free(self, slot: Slot) -> bool:
        return slot is not self._newest and not slot.filling and not slot.is_held()

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
            assert slot.version is not None, "announced before it was filled"
        self._replace_abandoned()
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
                    slot.moved_at = time.monotonic()
                    return slot
        return None

    def bucket(self, slot: Slot, bucket: int) -> tuple[memoryview, int]:
        """The bytes of a bucket, not copied, and their checksum."""
        start, stop = bucket_span(bucket, self.manifest(slot).total_bytes)
        data = slot.host.numpy().data[start:stop]
        if bucket not in slot.checksums:
            slot.checksums[bucket] = bucket_checksum(data)
        return data, slot.checksums[bucket]

    def sent(
        self, slot: Slot, session: int, tracker: zmq.MessageTracker | None, *, last: bool, peer: bytes = b""
    ) -> None:
        """Note frames on their way over a connection; with the last bucket the session lets go of the slot."""
        with self._lock:
            if tracker is not None:
                slot.is_queued()  # forgets what has left: a push would find the frames of all sessions at once
                slot.queued.append((peer, tracker))
            if last:
                slot.pins.discard(session)

    def holds(self, version: Version) -> bool:
        """Whether a version can be fetched; it may give way to others."""
        with self._lock:
            return any(slot.version == version and not slot.filling and not slot.is_empty for slot in self._slots)

    def is_behind(self, peer: bytes) -> bool:
        """Whether a connection has yet to read more than `FEW` frames of versions that were given up."""
        unread = (owner == peer and not frame.done for slot in self._left for owner, frame in slot.queued)
        return sum(unread) > FEW

    def release(self, session: int, *, dead: bool) -> None:
        """A session ended. What it still holds in ZeroMQ's queues is abandoned to it if it is dead."""
        with self._lock:
            for slot in self._slots:
                slot.pins.discard(session)
                slot.abandoned |= dead and slot.is_queued()
        self._replace_abandoned()

    def make_room(self) -> None:
        """If a push has found no free slot: one more, or else one version that is fetched gives way.

        First a version of which nothing moved for `silence_s`, then the youngest: so the oldest that moves is fetched
        to its end, and who has to begin anew, with the newest, has got least of his. Those who come late meet there.
        """
        with self._lock:
            self._left = [slot for slot in self._left if slot.is_queued()]
            held = [slot for slot in self._slots if slot.is_held() and slot is not self._newest and not slot.filling]
            is_needed = self._is_refused and not any(map(self._is_free, self._slots))
            self._is_refused = False
            if not is_needed or not held:
                return
            for slot in held:
                slot.note_moves()
            stalled = [slot for slot in held if time.monotonic() - slot.moved_at > self._silence_s]
            may_grow = not stalled and len(self._slots) < self._max_slots
            if not may_grow:
                able = [slot for slot in held if len(self._left) < MAX_LEFT or not slot.queued]
                able = [slot for slot in able if slot in stalled] or able
                for slot in sorted(able, key=lambda slot: slot.version or Version(0, 0))[-1:]:
                    slot.pins.clear()
                    slot.version, slot.abandoned = None, True
        if may_grow:
            self._grow()
        self._replace_abandoned()

    def _grow(self) -> None:
        try:
            slot = self._new_slot()  # without the lock, for which a push would wait
        except NO_MEMORY as error:
            self._max_slots = len(self._slots)
            log.warning("no memory for one more version of the weights (%s): slow scorers have to begin anew", error)
            return
        with self._lock:
            self._slots.append(slot)

    def _replace_abandoned(self) -> None:
        """New memory for slots whose frames may never be taken; the newest one's turn comes later."""
        replaced = []
        with self._lock:
            for slot in self._slots:
                if slot.abandoned and slot is not self._newest and not slot.filling and not slot.pins:
                    slot.abandoned = slot.is_queued()
                    if slot.abandoned and len(self._left) < MAX_LEFT:
                        slot.filling = True  # so that no push takes it meanwhile
                        self._left.append(slot)
                        replaced.append(slot)
        for slot in replaced:
            try:
                fresh = self._new_slot(slot)  # without the lock, for which a push would wait
            except NO_MEMORY as error:
                self._log.say("memory", f"no memory for another version of the weights: {error}")
                with self._lock:
                    self._left.remove(slot)
                    slot.filling = False  # free once what is queued has left
                continue
            with self._lock:
                self._slots[self._slots.index(slot)] = fresh
