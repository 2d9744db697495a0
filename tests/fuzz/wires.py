"""What stands in for sockets, so that both ends are driven as fast as they go."""

from collections.abc import Callable
from typing import Any

from common.protocol import (
    Message,
    decode,
)
from common.transport import Channel

GENERATION, CHUNK = 7, 4
NUM_A_PEER = 12  # messages before another peer's turn comes: one that talks nonsense is soon not heard


def resident_bytes() -> int:
    """Of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Wires:
    """Stands in for an IOThread: what is sent is kept by peer, what is posted runs at once."""

    alive, error, busy_s = True, None, 0.0

    def __init__(self) -> None:
        self.sent: dict[bytes | None, list[tuple[Channel, Message]]] = {}
        self.heard: set[bytes | None] = {None}  # whose messages are kept

    def send(self, channel: Channel, frames: Any, peer: bytes | None = None, *, track: bool = False) -> None:
        if peer in self.heard:
            self.sent.setdefault(peer, []).append((channel, decode([bytes(frame) for frame in frames])))

    def take(self, peer: bytes | None = None) -> list[tuple[Channel, Message]]:
        return self.sent.pop(peer, [])

    def post(self, task: Callable[[], object]) -> None:
        task()

    def spread(self, portion: Callable[[], bool]) -> None:
        while portion():
            pass

    def connect(self, channel: Channel, endpoint: str) -> None: ...

    def disconnect(self, channel: Channel) -> None: ...

    def check(self) -> None: ...

    def tick_within(self, seconds: float) -> None: ...

    def rest(self, seconds: float) -> None: ...
