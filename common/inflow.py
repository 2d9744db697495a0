"""Bytes that tcp peers have sent and that nobody has read: a message without an end, or more than is taken off.

ZeroMQ hands a message over when its last frame is there, limits the size of a frame and the number of messages that
wait, but not the frames of a message: a peer that never sends the last one fills the memory. So the kernel's own count
of what a connection brought is compared with what was read from it. On Linux; ipc, where the peer is the same user's,
has no such count.
"""

import collections
import contextlib
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from common.open_files import is_shortage, socket_of
from common.sparing_log import SparingLog

log = logging.getLogger(__name__)

Connection = tuple[int, object]  # descriptor and address

LOOK_EVERY_S = 0.25
LOG_EVERY_S = 10.0
FRAME_OVERHEAD_BYTES = 64  # at most, of ZeroMQ's framing and CURVE's boxes
SLACK_BYTES = 64 << 20  # the kernel's buffer, and small messages
FRAMES = 16  # of the largest size, of one honest peer, while this process stands still
OPEN_FILES = Path("/proc/self/fd")
_AT_ONCE = struct.pack("ii", 1, 0)  # what is unsent is thrown away when ZeroMQ closes it
_TCP_INFO_BYTES, _RECEIVED_AT = 136, 128  # struct tcp_info: tcpi_bytes_received


class Inflow:
    """Closes connections that bring far more than is read from them. Driven by the thread that owns the sockets.

    Args:
        max_frame_bytes: the largest frame that a peer may send.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self.most_bytes = SLACK_BYTES + FRAMES * max_frame_bytes
        self._ports: set[int] = set()
        self._read: collections.Counter[int] = collections.Counter()  # by descriptor, since the last look
        self._brought: dict[Connection, tuple[int, int]] = {}  # bytes in all, and not read
        self._next_look = 0.0
        self._log = SparingLog(log, LOG_EVERY_S)
        self.events: collections.Counter[str] = collections.Counter()

    def watch(self, port: int) -> None:
        """Connections to this port of ours count."""
        if sys.platform == "linux" and OPEN_FILES.is_dir():
            self._ports.add(port)

    def took(self, descriptor: int, frames: list[memoryview]) -> None:
        """A message was read that came over this connection."""
        self._read[descriptor] += sum(map(len, frames)) + FRAME_OVERHEAD_BYTES * (len(frames) + 1)

    def tick(self, now: float) -> None:
        """Look at all connections now and then."""
        if not self._ports or now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        before, self._brought = self._brought, {}
        try:
            for descriptor, connection in _sockets():
                with connection, contextlib.suppress(OSError, struct.error):  # it listens, or has just gone
                    if self._is_ours(connection):
                        self._look(descriptor, connection, before)
            self._read.clear()
        except OSError as error:  # what was not looked at is looked at later, from where it was
            self._brought = before | self._brought
            self._log.say("shortage", f"no connection can be looked at: {error.strerror}; see ulimit -n")

    def _look(self, descriptor: int, connection: socket.socket, before: dict[Connection, tuple[int, int]]) -> None:
        key = descriptor, connection.getpeername()
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (received,) = struct.unpack_from("=Q", info, _RECEIVED_AT)
        brought, unread = before.get(key, (0, 0))
        unread = max(0, unread + received - brought - self._read.pop(descriptor, 0))
        self._brought[key] = received, unread
        if unread > self.most_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            connection.shutdown(socket.SHUT_RDWR)
            self.events["connections closed"] += 1
            address = key[1][0].removeprefix("::ffff:")
            text = f"a peer at {address} was disconnected: it sent {unread >> 20} MiB that make no whole message"
            self._log.say("endless", text)

    def _is_ours(self, connection: socket.socket) -> bool:
        is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
        return is_tcp and connection.getsockname()[1] in self._ports


def _sockets() -> Iterator[tuple[int, socket.socket]]:
    """Descriptors of this process's sockets, each with a handle of our own.

    Raises:
        OSError: no descriptor is left to look with.
    """
    for name in os.listdir(OPEN_FILES):
        try:
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            connection = socket_of(int(name))
        except OSError as error:
            if is_shortage(error):
                raise
            continue  # it has just gone
        yield int(name), connection
