"""One message off a socket: from whom, and its frames, not copied."""

from typing import Protocol

import zmq

from common.protocol.limits import DEFAULT_LIMITS
from common.security.gate import Gate

MAX_FRAMES = DEFAULT_LIMITS.max_frames
NOBLOCK = int(zmq.NOBLOCK)  # enums cost microseconds a frame


class Watcher(Protocol):
    """Told of what is read, and over which connection it came."""

    def took(self, descriptor: int, frames: list[memoryview]) -> None: ...


def receive(
    own: "zmq.Socket[bytes]", is_router: bool, gate: Gate | None, watcher: Watcher | None
) -> tuple[bytes, list[memoryview]] | None:
    """The next message, or what is left of it. Of too many frames the first and one too many: it will be refused.

    Args:
        gate: knows whose key was taken off the list, on a ROUTER on tcp.
        watcher: of the connections, where somebody is.

    Returns:
        The peer's routing id, b"" for that of a DEALER, and the frames; None if there is nothing from whom is heard.
    """
    try:
        peer: bytes | None = b""
        if gate is not None:
            peer = gate.known(own.recv(NOBLOCK, copy=False))
        elif is_router:
            peer = own.recv(NOBLOCK)
        part = own.recv(NOBLOCK, copy=False)
        frames = [part.buffer]
        while part.more:
            part = own.recv(NOBLOCK, copy=False)
            if len(frames) <= MAX_FRAMES:
                frames.append(part.buffer)
    except zmq.Again:
        return None
    if watcher is not None:
        watcher.took(part.get(zmq.SRCFD), frames)
    return None if peer is None else (peer, frames)
