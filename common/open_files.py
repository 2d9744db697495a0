"""How many files a process may have open: each scorer costs a trainer two, each rank costs a scorer some."""

import contextlib
import errno
import os
import socket
import sys

MOST = 1 << 16  # what walks through all descriptors stays quick
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def is_shortage(error: BaseException | None) -> bool:
    """Whether this process or system had no descriptor or memory to give: it says nothing of what was to be opened.

    Args:
        error: an OSError or ZeroMQ's, which have a number; of any other this is False.
    """
    return getattr(error, "errno", None) in SHORTAGES


def socket_of(descriptor: int) -> socket.socket:
    """A handle of our own on a socket of this process: what is looked at stays the same, whoever closes the other.

    Raises:
        OSError: it is none, or has just gone, or no descriptor is left, see `is_shortage`.
    """
    handle = os.dup(descriptor)
    try:
        return socket.socket(fileno=handle)
    except OSError:
        os.close(handle)
        raise


def allow_many_open_files() -> None:
    """Raise the soft limit, 1,024 on most systems, towards the hard one; nothing where there is no such limit."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a system with a lower bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
