"""The way to one rank of a trainer: a control channel of the scorer's I/O thread."""

from dataclasses import dataclass

from common.protocol import Message, encode
from common.sockets import control_of
from common.transport import Channel, IOThread


@dataclass
class Line:
    """On the I/O thread only, but for `connect` before it starts. Nothing is sent on a line that was closed."""

    io: IOThread
    rank: int
    endpoint: str
    is_closed: bool = False

    @property
    def channel(self) -> Channel:
        return control_of(self.rank)

    @property
    def is_remote(self) -> bool:
        return self.endpoint.startswith("tcp://")

    def connect(self) -> None:
        """A fresh connection in place of the one before. Raises EndpointError, see `common.sockets.Sockets.connect`."""
        self.io.connect(self.channel, self.endpoint)

    def send(self, message: Message) -> bool:
        """Whether it left, or waits to: False without a connection."""
        return not self.is_closed and self.io.send(self.channel, encode(message)) is not False

    def close(self) -> None:
        """What was sent still leaves."""
        if not self.is_closed:
            self.is_closed = True
            self.io.disconnect(self.channel)
