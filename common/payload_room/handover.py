"""How a room reaches the trainer: its descriptor in a datagram to a unix socket beside the control endpoint.

A datagram is written whole or not at all, and nobody waits for anybody: with a full queue there is no room, and until
the trainer has taken a room, at its next tick, payload goes through the ZeroMQ socket.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

from common.payload_room.area import Layout

SUFFIX = ".m"
_FORM = struct.Struct("<4sQQQ")  # magic, session, slots, bytes of a slot
_MAGIC = b"MGSR"


def path_of(endpoint: str) -> str | None:
    """Where rooms are handed over, beside an ipc endpoint; None on tcp."""
    return endpoint.removeprefix("ipc://") + SUFFIX if endpoint.startswith("ipc://") else None


def send(path: str, session: int, layout: Layout, descriptor: int) -> None:
    """Raises OSError where nobody takes rooms, or too many wait to be taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(path)
        socket.send_fds(sender, [_FORM.pack(_MAGIC, session, layout.num_slots, layout.slot_bytes)], [descriptor])


class Handover:
    """The trainer's side: takes what scorers sent, without waiting.

    Args:
        path: beside an ipc endpoint that this process has claimed; a socket that an earlier trainer left is replaced.

    Raises:
        OSError: it cannot be bound.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._socket.bind(path)
            self._inode = os.stat(path).st_ino
        except OSError:
            self._socket.close()
            raise

    def received(self, most: int) -> Iterator[tuple[int, Layout, int]]:
        """(session, layout, descriptor) of at most `most` datagrams; the descriptors are the caller's to close."""
        for _ in range(most):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _FORM.size + 1, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError:  # nothing there
                return
            if len(data) == _FORM.size and data.startswith(_MAGIC) and len(descriptors) == 1:
                _, session, num_slots, slot_bytes = _FORM.unpack(data)
                yield session, Layout(num_slots, slot_bytes), descriptors[0]
                continue
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:  # else the next trainer's, who has the endpoint already
                os.unlink(self._path)
