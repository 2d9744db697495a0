"""The trainer's end of all rooms: payload where scorers placed it, released when nothing refers to it any more."""

import collections
import logging
import os
import weakref
from collections.abc import Container

from msgspec.structs import replace

from common.errors import ProtocolError
from common.payload_room.area import IS_AVAILABLE, Area, Layout, check_received
from common.payload_room.handover import Handover, path_of
from common.protocol import Array, Candidates, Placed

log = logging.getLogger(__name__)

MOST_AT_ONCE = 16  # rooms taken in a tick: whoever sends them without end fills the queue, and not the trainer's time


class Room:
    """One session's. `memory` on the I/O thread; the releases come from whatever thread drops a tensor last."""

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self._area = Area(descriptor, layout)
        self._seen = [0] * layout.num_slots  # the last use of each slot
        self._held: set[int] = set()
        self._pid = os.getpid()
        self._area.take()

    def memory(self, placed: Placed) -> memoryview:
        """The bytes of what was placed, which keep their slot until the last reference to them is gone.

        Raises:
            ProtocolError: no such slot, larger than a slot, or a use that cannot be.
        """
        slot, use, num_bytes, layout = placed.slot, placed.use, placed.nbytes, self._area.layout
        if slot >= layout.num_slots or not 0 < num_bytes <= layout.slot_bytes:
            raise ProtocolError(f"{num_bytes} bytes in slot {slot} of {layout.num_slots} of {layout.slot_bytes} bytes")
        if slot in self._held or use <= self._seen[slot]:
            raise ProtocolError(f"use {use} of slot {slot}, whose use {self._seen[slot]} is this one or not over")
        self._held.add(slot)
        self._seen[slot] = use
        lent = self._area.bytes_of(slot, num_bytes)
        weakref.finalize(lent, self._release, slot, use).atexit = False
        return lent.data

    def _release(self, slot: int, use: int) -> None:
        if os.getpid() != self._pid:
            return  # dropped in a forked child, a data loader's: the parent has it still
        self._held.discard(slot)  # first: once it is released, its next use may come
        self._area.releases[slot] = use


class Rooms:
    """By session. Owned by the I/O thread.

    Args:
        events: counters of what happened, by name.
    """

    def __init__(self, events: collections.Counter[str]) -> None:
        self._events = events
        self._handover: Handover | None = None
        self._rooms: dict[int, Room] = {}

    def open(self, endpoint: str) -> None:
        """Take rooms of scorers at an ipc endpoint that this process has bound; elsewhere there are none."""
        path = path_of(endpoint) if IS_AVAILABLE else None
        if path is None:
            return
        try:
            self._handover = Handover(path)
        except OSError as error:
            log.warning("payload travels through the socket: cannot take shared memory at %s: %s", path, error)

    def close(self) -> None:
        if self._handover is not None:
            self._handover.close()
        self._rooms.clear()

    def filled(self, session: int, message: Candidates) -> Candidates:
        """The message with the inputs that it says where to find, not copied. Whoever drops them frees their slot.

        Raises:
            ProtocolError: they cannot be there.
        """
        placed = message.placed
        if placed is None:
            return message
        if session not in self._rooms:
            raise ProtocolError("inputs placed in a room that this session does not have")
        memory = self._rooms[session].memory(placed)
        self._events["chunks through shared memory"] += 1
        return replace(message, inputs=Array(placed.dtype, placed.shape, memory), placed=None)

    def tick(self, sessions: Container[int]) -> None:
        """Take what came, and let go of the rooms of other sessions than these."""
        for session in [one for one in self._rooms if one not in sessions]:
            del self._rooms[session]
        if self._handover is None:
            return
        for session, layout, descriptor in self._handover.received(MOST_AT_ONCE):
            try:
                if session in sessions:
                    check_received(descriptor, layout)
                    self._rooms[session] = Room(descriptor, layout)
            except (OSError, ValueError) as error:
                self._events["shared memory refused"] += 1
                log.warning("a scorer's shared memory was refused, its payload travels through the socket: %s", error)
            finally:
                os.close(descriptor)
