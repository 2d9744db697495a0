"""The scorer's end of a room: inputs into free slots."""

import itertools
import logging
import os

import numpy as np
from msgspec.structs import replace

from common.payload_room import handover
from common.payload_room.area import IS_AVAILABLE, ROOM_BYTES, SOCKET_BYTES, Area, Layout, create
from common.protocol import Candidates, Placed, Welcome

log = logging.getLogger(__name__)

_use_numbers = itertools.count(1)  # of this scorer: over all sessions, with all ranks of its trainer


class PayloadRoom:
    """Owned by the I/O thread of a scorer. A room is made when a session's first payload needs one.

    Args:
        endpoint: of the trainer's control channel; only on ipc is there a room.
    """

    def __init__(self, endpoint: str) -> None:
        self._path = handover.path_of(endpoint) if IS_AVAILABLE else None
        self._welcome: Welcome | None = None  # of a session that may still get a room, or has one
        self._area: Area | None = None
        self._descriptor = -1
        self._uses: list[int] = []  # of each slot, the last one; 0 where it was never used or came to nothing
        self._has_pages: list[bool] = []

    def begin(self, welcome: Welcome) -> None:
        """A new session, and so a new room."""
        self.forget()
        if self._path is not None and welcome.transfer == "payload":
            self._welcome = welcome

    def forget(self) -> None:
        """The session is over: whatever the trainer still holds of the room stays as it is."""
        self._welcome = self._area = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def placed(self, message: Candidates) -> Candidates:
        """The message with its inputs in a slot, or as it came where there is no reason or no room for that."""
        inputs = message.inputs
        if self._welcome is None or inputs is None or inputs.nbytes < SOCKET_BYTES:
            return message
        if self._area is None:
            self._open(inputs.nbytes // inputs.shape[0] * self._welcome.chunk_size)
        area, slot = self._area, self._free_slot(inputs.nbytes)
        if area is None or slot is None:
            return message
        np.copyto(area.bytes_of(slot, inputs.nbytes), np.frombuffer(inputs.buffer, dtype=np.uint8))
        use = self._uses[slot] = next(_use_numbers)
        return replace(message, inputs=None, placed=Placed(slot, use, inputs.dtype, inputs.shape))

    def take_back(self, message: Candidates) -> None:
        """The message was not sent: its slot, if it has one, is free."""
        if message.placed is not None and self._uses[message.placed.slot] == message.placed.use:
            self._uses[message.placed.slot] = 0

    def _open(self, chunk_bytes: int) -> None:
        assert self._welcome is not None, "a room without a session"
        assert self._path is not None, "a room without an ipc endpoint"
        layout = Layout.of(chunk_bytes)
        try:
            if layout is None:
                raise OSError(f"chunks of {chunk_bytes / 1e6:.0f} MB, of a room of {ROOM_BYTES / 1e6:.0f} MB")
            self._descriptor = create(layout)
            self._area = Area(self._descriptor, layout)
            handover.send(self._path, self._welcome.session, layout, self._descriptor)
        except OSError as error:
            log.info("payload travels through the socket, as there is no shared memory for it: %s", error)
            self.forget()
            return
        self._uses, self._has_pages = [0] * layout.num_slots, [False] * layout.num_slots
        log.info(
            "payload travels through shared memory: up to %d slots of %.1f MB",
            layout.num_slots,
            layout.slot_bytes / 1e6,
        )

    def _free_slot(self, num_bytes: int) -> int | None:
        """The lowest one, whose memory is the likeliest to be in a cache; None also before the trainer has the room."""
        if self._area is None or not self._area.is_taken or num_bytes > self._area.layout.slot_bytes:
            return None
        releases = self._area.releases
        for slot, use in enumerate(self._uses):
            if use in (0, releases[slot]):
                return slot if self._has_pages[slot] or self._take_pages(slot) else None
        return None

    def _take_pages(self, slot: int) -> bool:
        """Have the kernel reserve a slot's memory: to run out of it at a write would be a SIGBUS."""
        assert self._area is not None, "a slot without a room"
        layout = self._area.layout
        try:
            os.posix_fallocate(self._descriptor, layout.offset(slot), layout.slot_bytes)
        except OSError as error:
            log.warning("no memory for slot %d of the payload's room: %s; it stays at %d", slot, error, slot)
            del self._uses[slot:], self._has_pages[slot:]
            return False
        self._has_pages[slot] = True
        return True
