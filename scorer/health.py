"""What a scorer says to operators over HTTP: whether it is alive, whether it is ready."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.health.checks import Check, Pulse, moved
from common.transport import STUCK_S, IOThread
from common.waiting import reported
from scorer.ranks import Ranks
from scorer.stopwatch import Stopwatch

if TYPE_CHECKING:
    from common.health.pages import Pages

CHUNK_S = 60.0  # longer than any chunk should take: the trainer gives its lease to others


@dataclass
class Watched:
    """What is looked at, from the server's threads; nothing here is changed.

    Attributes:
        pulse: beaten by the main thread whenever it looks for work.
        bound_s: how long it may take for a chunk.
    """

    ranks: Ranks
    stopwatch: Stopwatch
    io: IOThread
    pulse: Pulse = field(default_factory=Pulse)
    bound_s: float = math.inf
    _is_reported: bool = False

    def check(self) -> None:
        """Have the log say, once, what the main thread is at for so long. On the I/O thread."""
        is_long = self.pulse.age_s > CHUNK_S
        if is_long and not self._is_reported:
            reported(f"scoring one chunk, or loading weights, takes {self.pulse.age_s:.0f} s by now")
        self._is_reported = is_long


@contextmanager
def open_pages(port: int | None) -> "Iterator[Pages | None]":
    """Serve `--metrics-port` meanwhile, if there is one. Raises EndpointError if it is in use."""
    if port is None:
        yield None
        return
    # Imported here: prometheus-client takes a tenth of a second, and few ask for it.
    from common.health.server import HealthServer

    with HealthServer(port) as server:
        yield server.pages


def show(pages: "Pages", watched: Watched) -> None:
    """From now on the pages are about this scorer."""
    from scorer.metrics import METRICS

    pages.show(watched, alive=alive, ready=ready, metrics=METRICS)


def alive(watched: Watched) -> Iterator[Check]:
    """Whether the loops come round."""
    yield moved("scoring", "the last chunk ended, or work was looked for,", watched.pulse.age_s, watched.bound_s)
    yield moved("trainer", "the thread that talks to it came round", watched.io.age_s, STUCK_S)


def ready(watched: Watched) -> Iterator[Check]:
    """Whether leases can be served."""
    welcome, resident = watched.ranks.first.welcome, watched.ranks.versions.resident
    words = "no trainer has welcomed this scorer"
    if welcome is not None:
        words = f"in session with generation {welcome.generation}"
        if welcome.num_ranks > 1:
            words += f", {watched.ranks.num_in_session} of {welcome.num_ranks} ranks"
    yield Check("session", welcome is not None, words)
    yield Check("weights", resident is not None, "none yet" if resident is None else f"of step {resident.step}")
