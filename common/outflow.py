"""Room in the kernel for what is sent over ipc: a whole bucket, where it has a tenth of one by default.

With less, sender and receiver wake each other for every such part of a bucket: pushes take a fifth to a
third longer.
"""

import contextlib
import socket

from common.buckets import BUCKET_BYTES
from common.open_files import socket_of


class Outflow:
    """Widens the connections over which peers ask for buckets. As much as the system allows; tcp sees to its own."""

    def took(self, descriptor: int, frames: list[memoryview]) -> None:
        """A message was read that came over this connection; another may have had its number before."""
        with contextlib.suppress(OSError), socket_of(descriptor) as connection:
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < BUCKET_BYTES:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUCKET_BYTES // 2)  # which Linux doubles
