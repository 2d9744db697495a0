"""Room in the kernel for what is sent over ipc: a whole bucket, where a tenth of one is usual.

With less, sender and receiver wake each other for every such part: a version arrives a fifth to a third later.
"""

import contextlib
import socket

from common.buckets import BUCKET_BYTES
from common.open_files import socket_of


class Outflow:
    """Widens the connections over which peers ask for buckets, as far as `net.core.wmem_max` allows."""

    def took(self, descriptor: int, frames: list[memoryview]) -> None:
        """A message was read that came over this connection. Nothing is remembered: numbers are used again."""
        with contextlib.suppress(OSError), socket_of(descriptor) as connection:
            is_ipc = connection.family == socket.AF_UNIX  # else it closed, and its number is another connection's
            if is_ipc and connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < BUCKET_BYTES:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUCKET_BYTES)
