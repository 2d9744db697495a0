"""The way to one rank of a trainer: a control channel of the scorer's I/O thread."""

from dataclasses import dataclass

from common.protocol import Message, encode
from common.sockets import control_of
from common.transport import Channel, IOThread


@dataclass
class Line:
    """On the I/O thread only, but for `connect` before it starts. Nothing is sent on a line that is not open."""

    io: IOThread
    rank: int
    endpoint: str
    is_open: bool = False

    @property
    def channel(self) -> Channel:
        return control_of(self.rank)

    @property
    def is_remote(self) -> bool:
        return self.endpoint.startswith("tcp://")

    def connect(self) -> None:
        """A fresh connection in place of the one before. Raises EndpointError, see `common.sockets.Sockets.connect`."""
        self.io.connect(self.channel, self.endpoint)
        self.is_open = True

    def send(self, message: Message) -> bool:
        """Whether it left, or waits to: False without a connection."""
        return self.is_open and self.io.send(self.channel, encode(message)) is not False

    def close(self) -> None:
        """What was sent still leaves."""
        if self.is_open:
            self.is_open = False
            self.io.disconnect(self.channel)
