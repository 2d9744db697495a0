"""The ranks of one trainer, and what this scorer does for them all.

A person names the endpoint of rank 0. Its WELCOME says how many ranks there are and where the others listen; a scorer
then says HELLO to each of them. Weights come from rank 0 alone, and so one version is resident, whichever rank a lease
is of. Where rank 0's session ends, all end: the next WELCOME names the ranks anew. Another rank's session is lost
alone, and that rank is looked for as long as rank 0's session lasts.
"""

import collections
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from common.endpoints import rank_endpoint, weights_endpoint
from common.errors import EndpointError, MarginstreamError, ProtocolError
from common.open_files import is_shortage
from common.protocol import Fetch, Goodbye, Heartbeat, Hello, Weights, Welcome, encode
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from scorer.dialogue import Dialogue
from scorer.inbox import Work
from scorer.landing import Landing
from scorer.line import Line
from scorer.other_rank import IGNORED, OtherRank
from scorer.stopwatch import Stopwatch
from scorer.turns import Turns
from scorer.versions import Versions


@dataclass
class State:
    """Of the scorer as a whole. Shared by the two threads under `Link.changed`, as everything here is.

    Attributes:
        progress: chunks scored, wanted in the end or not.
        ended: why the trainer said goodbye.
        error: why this scorer cannot go on.
        events: counters of what happened, by name.
    """

    progress: int = 0
    ended: str | None = None
    error: MarginstreamError | None = None
    events: collections.Counter[str] = field(default_factory=collections.Counter)


class Ranks:
    """The caller serialises all calls. In the role of rank 0 towards its dialogue.

    Args:
        endpoint: of rank 0's control channel.
        hello: what this scorer is.
        check_manifest: see `scorer.fetcher.Fetcher`.
        stopwatch: begins anew with each session of rank 0.

    Attributes:
        first: the dialogue with rank 0.
    """

    def __init__(
        self,
        endpoint: str,
        hello: Hello,
        io: IOThread,
        *,
        check_manifest: Callable[[Weights], Landing | None],
        wants_weights: bool,
        stopwatch: Stopwatch,
    ) -> None:
        self._io = io
        self._stopwatch = stopwatch
        self._turns = Turns()
        self._others: dict[Channel, Dialogue] = {}
        self.hello = hello
        self.state = State()
        self.versions = Versions(
            fetch=self._fetch,
            open_weights=lambda port: io.connect(WEIGHTS, weights_endpoint(endpoint, port)),
            check_manifest=check_manifest,
            wants_weights=wants_weights,
            events=self.state.events,
        )
        self.first = Dialogue(Line(io, 0, endpoint), hello, self, self.versions.handlers, self.state.events)

    def __iter__(self) -> Iterator[Dialogue]:
        """All that this scorer has a session with, or looks for. Any thread."""
        yield self.first
        yield from list(self._others.values())

    @property
    def num_in_session(self) -> int:
        return sum(dialogue.welcome is not None for dialogue in self)

    def on(self, channel: Channel) -> Dialogue | None:
        """The dialogue that a message on this channel belongs to; None where it is over."""
        return self.first if channel in (CONTROL, WEIGHTS) else self._others.get(channel)

    def of(self, welcome: Welcome) -> Dialogue | None:
        """The dialogue in whose session this is the WELCOME; None where that session is over."""
        return next((dialogue for dialogue in self if dialogue.welcome is welcome), None)

    def next_work(self, most: int) -> Work | None:
        """See `scorer.turns.Turns`."""
        return self._turns.next_work([dialogue.inbox for dialogue in self], self.versions.resident, most)

    def tick(self, now: float) -> None:
        self.first.tick(now, self.beat)
        for dialogue in self._others.values():
            dialogue.tick(now, self.beat)
        if self.first.welcome is not None:
            self.versions.tick(now)

    def say_goodbye(self, why: str) -> None:
        for dialogue in self:
            dialogue.line.send(Goodbye(why))

    # -- the role of rank 0 -------------------------------------------------------------------------------------------

    def check(self, welcome: Welcome) -> None:
        if welcome.rank:
            raise ProtocolError(
                f"WELCOME of rank {welcome.rank} of {welcome.num_ranks}; --connect names that of rank 0"
            )
        is_remote, num_others = self.first.line.is_remote, welcome.num_ranks - 1
        if is_remote and not welcome.weights_port:
            raise ProtocolError("WELCOME over tcp names no port for weights")
        if len(welcome.ranks) != (num_others if is_remote else 0):
            how = "tcp names all other ranks" if is_remote else "ipc names no addresses of ranks"
            raise ProtocolError(f"WELCOME over {how}: got {len(welcome.ranks)}, of {num_others} others")

    def begin(self, welcome: Welcome) -> None:
        self._stopwatch.begin()
        self.versions.begin(welcome)
        try:
            for rank in range(1, welcome.num_ranks):
                self._look_for(rank, welcome)
        except EndpointError as error:
            text = f"WELCOME names ranks that cannot be reached: {error}"
            self.first.line.send(Goodbye(text))
            self.first.forget_session()
            raise ProtocolError(text) from error

    def forget(self) -> None:
        self.versions.forget()
        for channel in list(self._others):
            self._others[channel].line.send(Goodbye("the session with rank 0 is over"))
            self._drop(channel)

    def end(self, why: str) -> None:
        self.state.ended = why

    def fail(self, error: MarginstreamError) -> None:
        self.state.error = error

    # -- the others ---------------------------------------------------------------------------------------------------

    def _look_for(self, rank: int, named: Welcome) -> None:
        """Raises EndpointError for a rank that cannot be reached, now or later."""
        endpoint = rank_endpoint(self.first.line.endpoint, rank, named.ranks[rank - 1] if named.ranks else None)
        line = Line(self._io, rank, endpoint)
        role = OtherRank(line, named, drop=lambda: self._drop(line.channel))
        other = Dialogue(line, self.hello, role, IGNORED, self.state.events)
        try:
            other.connect(time.monotonic())
        except EndpointError as error:
            if not is_shortage(error.__cause__):
                raise
        self._others[line.channel] = other  # its ticks try again what did not succeed

    def _drop(self, channel: Channel) -> None:
        self._others.pop(channel).close()

    # -- what travels -------------------------------------------------------------------------------------------------

    def beat(self, leases: Iterable[int]) -> Heartbeat:
        progress, resident = self.state.progress, self.versions.resident
        return Heartbeat(progress, resident, tuple(leases), progress, self._stopwatch.spent())

    def _fetch(self, fetch: Fetch) -> bool:
        return self._io.send(WEIGHTS, encode(fetch)) is not False
