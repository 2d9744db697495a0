"""What the words of any rank but the first mean for the scorer as a whole: little more than work."""

import logging
from collections.abc import Callable

from common.errors import MarginstreamError, ProtocolError
from common.protocol import Goodbye, Heartbeat, Message, VersionHint, Welcome
from scorer.line import Line

log = logging.getLogger(__name__)


def _ignore(message: Message) -> None:
    """The first rank alone is believed about versions."""


IGNORED: dict[type, Callable[..., None]] = {Heartbeat: _ignore, VersionHint: _ignore}


class OtherRank:
    """A `scorer.dialogue.Role`. Once it is over, this rank is looked for again when rank 0 names the ranks anew.

    Args:
        named: rank 0's WELCOME, by which this one is known.
        drop: ends the dialogue.
    """

    def __init__(self, line: Line, named: Welcome, drop: Callable[[], None]) -> None:
        self._line = line
        self._named = named
        self._drop = drop

    def check(self, welcome: Welcome) -> None:
        rank, num_ranks, generation = self._line.rank, self._named.num_ranks, self._named.generation
        if (welcome.rank, welcome.num_ranks, welcome.generation) == (rank, num_ranks, generation):
            return
        text = (
            f"WELCOME of rank {welcome.rank} of {welcome.num_ranks}, generation {welcome.generation}, where rank 0 "
            f"named rank {rank} of {num_ranks}, generation {generation}"
        )
        self._line.send(Goodbye(text))  # it takes this scorer for one of its own, and would lease to it
        raise ProtocolError(text)

    def begin(self, welcome: Welcome) -> None:
        pass

    def forget(self) -> None:
        pass

    def end(self, why: str) -> None:
        log.info("rank %d of the trainer said goodbye: %s", self._line.rank, why)
        self._drop()

    def fail(self, error: MarginstreamError) -> None:
        log.error("rank %d of the trainer gets nothing scored here: %s", self._line.rank, error)
        self._drop()
