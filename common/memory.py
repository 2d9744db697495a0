"""How the allocator deals with memory that is freed. glibc only; elsewhere nothing happens."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
KEPT_BYTES = 256 << 20  # freed memory at the end of a heap that is not given back
LARGEST_BYTES = 32 << 20  # the most that glibc takes: whatever is larger is mapped and unmapped each time
CHOSEN_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Have freed memory kept for what is allocated next: activations and messages are of the same sizes all the time.

    By default the system takes it back and hands out new pages, which it clears first, in every step. A process then
    keeps up to `KEPT_BYTES` that it does not use. Whoever chose an allocator or its thresholds keeps the choice.

    Returns:
        Whether the allocator took it.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN_BY_USERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_BYTES)) and bool(mallopt(TRIM_THRESHOLD, KEPT_BYTES))
