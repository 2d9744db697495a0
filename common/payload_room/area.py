"""The memory of a room, a memfd that nobody can shrink: a page that the trainer writes, then slots of one size."""

import fcntl
import mmap
import os
from dataclasses import dataclass

import numpy as np

ROOM_BYTES = 256 << 20  # of one scorer; pages are taken as slots are first used
SOCKET_BYTES = 64 << 10  # smaller inputs travel through the socket, where they cost less than the bookkeeping
MAX_SLOTS = 64
MIN_SLOTS = 2  # with one, the scorer would wait for the trainer after each chunk

PAGE_BYTES = mmap.PAGESIZE
_WORD_BYTES = 8
assert (MAX_SLOTS + 1) * _WORD_BYTES <= PAGE_BYTES, "the releases and one word more have one page"

IS_AVAILABLE = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


@dataclass(frozen=True)
class Layout:
    """How a room is divided. `slot_bytes` is a multiple of the page size."""

    num_slots: int
    slot_bytes: int

    @classmethod
    def of(cls, chunk_bytes: int) -> "Layout | None":
        """For chunks of so many bytes; None where fewer than MIN_SLOTS fit into ROOM_BYTES."""
        slot_bytes = -(-max(1, chunk_bytes) // PAGE_BYTES) * PAGE_BYTES
        num_slots = min(MAX_SLOTS, (ROOM_BYTES - PAGE_BYTES) // slot_bytes)
        return cls(num_slots, slot_bytes) if num_slots >= MIN_SLOTS else None

    @property
    def is_possible(self) -> bool:
        """Whether a room may be divided so: for figures that another process sent."""
        return (
            1 <= self.num_slots <= MAX_SLOTS
            and self.slot_bytes > 0
            and self.slot_bytes % PAGE_BYTES == 0
            and self.total_bytes <= ROOM_BYTES
        )

    @property
    def total_bytes(self) -> int:
        return PAGE_BYTES + self.num_slots * self.slot_bytes

    def offset(self, slot: int) -> int:
        return PAGE_BYTES + slot * self.slot_bytes


class Area:
    """A mapping of a room. It ends with the last reference to it or to what it gave out.

    Attributes:
        releases: (MAX_SLOTS,) uint64, the last use of each slot that the trainer is done with. Written by the trainer
            only, as `is_taken` is.
    """

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.layout = layout
        self._memory = mmap.mmap(descriptor, layout.total_bytes)
        self._words = np.frombuffer(self._memory, dtype=np.uint64, count=MAX_SLOTS + 1)
        self.releases = self._words[:MAX_SLOTS]

    @property
    def is_taken(self) -> bool:
        """Whether the trainer has mapped it."""
        return bool(self._words[MAX_SLOTS])

    def take(self) -> None:
        self._words[MAX_SLOTS] = 1

    def bytes_of(self, slot: int, num_bytes: int) -> np.ndarray:
        """(num_bytes,) uint8, the first of a slot; keeps the mapping alive."""
        return np.frombuffer(self._memory, dtype=np.uint8, count=num_bytes, offset=self.layout.offset(slot))


def create(layout: Layout) -> int:
    """The descriptor of a new area. Raises OSError where the system has none to give."""
    descriptor = os.memfd_create("marginstream-payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, layout.total_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        os.posix_fallocate(descriptor, 0, PAGE_BYTES)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_received(descriptor: int, layout: Layout) -> None:
    """Raises ValueError for an area that another process could shrink, or of another size than its layout's."""
    if not layout.is_possible:
        raise ValueError(f"a room has at most {MAX_SLOTS} slots of whole pages and {ROOM_BYTES} bytes, got {layout}")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ValueError(f"a room is a memfd, got something without seals: {error.strerror}") from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise ValueError("a room must be sealed against shrinking")
    if (size := os.fstat(descriptor).st_size) != layout.total_bytes:
        raise ValueError(f"a room of {layout} has {layout.total_bytes} bytes, got {size}")
