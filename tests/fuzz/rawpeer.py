"""A peer on a bare socket, which can say what no ZeroMQ would: half a message, or one without an end."""

import socket
import struct
from typing import Self

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
MORE, LARGE, COMMAND = 1, 2, 4


class RawPeer:
    """Speaks ZMTP 3 (rfc.zeromq.org/spec/23) without security, as a DEALER."""

    def __init__(self, endpoint: str, within_s: float = 10.0) -> None:
        if endpoint.startswith("ipc://"):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(within_s)
            self.socket.connect(endpoint.removeprefix("ipc://"))
        else:
            host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
            self.socket = socket.create_connection((host, int(port)), within_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def join(self) -> None:
        """Greet as ZeroMQ does; from then on frames may follow."""
        self.socket.sendall(GREETING + bytes([COMMAND, len(READY)]) + READY)

    def frame(self, data: bytes, *, more: bool = False) -> None:
        self.socket.sendall(bytes([LARGE | (MORE if more else 0)]) + struct.pack(">Q", len(data)) + data)

    def is_closed(self) -> bool:
        """Whether the other side has hung up; what it said before is thrown away."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
