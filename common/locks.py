"""Locks on files, which the system releases when their holder dies."""

import fcntl
from typing import IO, Any


def try_lock(file: IO[Any] | int) -> bool:
    """Whether nobody else holds the lock of the open file; then it is held until all who inherited the file have ended.

    Raises:
        OSError: its file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
