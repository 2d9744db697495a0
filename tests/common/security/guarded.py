"""A trainer behind a gate, and scorers that knock."""

import contextlib
from pathlib import Path

from common.security.credentials import Credentials, Insecure
from common.security.gate import Gate
from common.transport import CONTROL, WEIGHTS, Channel
from tests.common.transport.sides import TCP, Side, until


class Trainer:
    """Both channels behind a gate."""

    def __init__(self, opened: contextlib.ExitStack, keys: Path) -> None:
        self.gate = Gate(keys)
        self.side = Side(security=self.gate)
        opened.callback(self.side.io.stop)
        self.endpoints: dict[Channel, str] = {name: self.side.io.bind(name, TCP) for name in (CONTROL, WEIGHTS)}
        self.side.io.start()

    def hears(self, scorer: Side, channel: Channel, text: bytes) -> bytes:
        """The routing id of a scorer that is heard, as the only one who says anything."""
        until(lambda: scorer.send(channel, [text]) is not False)
        got, peer, frames = self.side.recorder.next()
        assert (got, frames) == (channel, [text])
        return peer


def scorer(opened: contextlib.ExitStack, trainer: Trainer, security: Credentials | Insecure, channel: Channel) -> Side:
    """Says `hello` whenever it can, as one does until it is welcomed."""
    side = Side(security=security)
    opened.callback(side.io.stop)
    side.io.connect(channel, trainer.endpoints[channel])
    side.io.start()
    return side


def knows(stranger: Path, keys: Path) -> None:
    (stranger / "trainer.pub").write_bytes((keys / "trainer.pub").read_bytes())
