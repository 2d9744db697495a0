"""Which weights versions there are, by the word of a trainer's first rank, and which one this scorer has.

A scorer that needs no weights fetches none: whatever version the trainer announces counts as resident at once.
"""

import collections
import logging
from collections.abc import Callable

from common.errors import EndpointError, ProtocolError
from common.protocol import Fetch, Heartbeat, Version, VersionHint, Weights, WeightsGone, Welcome
from common.sparing_log import SparingLog
from scorer.fetcher import Fetcher
from scorer.landing import Landing

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0


class Versions:
    """Shared by two threads; the caller serialises all calls.

    Args:
        fetch, check_manifest: see `scorer.fetcher.Fetcher`.
        open_weights: connects the weights channel, at the port told; what it raises as EndpointError is tried again.
        events: counters of what happened, by name.

    Attributes:
        resident: the version that leases are measured by.
        handlers: of the messages about versions, by type.
    """

    def __init__(
        self,
        *,
        fetch: Callable[[Fetch], bool],
        open_weights: Callable[[int], object],
        check_manifest: Callable[[Weights], Landing | None],
        wants_weights: bool,
        events: "collections.Counter[str]",
    ) -> None:
        self._open_weights = open_weights
        self._wants_weights = wants_weights
        self._generation: int | None = None
        self._port = 0
        self._is_open = False  # the weights channel, to where this session's weights are
        self._log = SparingLog(log, LOG_EVERY_S)
        self.fetcher = Fetcher(lambda ask: self._is_open and fetch(ask), check_manifest, events, self._connect)
        self.resident: Version | None = None
        self.handlers: dict[type, Callable[..., None]] = {
            VersionHint: lambda hint: self._on_version(hint.version),
            Heartbeat: self._on_heartbeat,
        }
        if wants_weights:
            self.handlers |= {Weights: self._on_weights, WeightsGone: self._on_gone}

    def begin(self, welcome: Welcome) -> None:
        """A session with the first rank: the same version of another trainer is other weights."""
        self.forget()
        self._generation = welcome.generation
        if self._wants_weights:
            self.fetcher.begin(welcome.session)
            self._port = welcome.weights_port
            self._connect()
        if welcome.version is not None:
            self._on_version(welcome.version)

    def tick(self, now: float) -> None:
        """Within a session."""
        if self._wants_weights and not self._is_open:
            self._connect()
        self.fetcher.tick(now)

    def forget(self) -> None:
        self._generation = self.resident = None
        self.fetcher.forget()

    def _connect(self) -> None:
        """A new connection for weights, or one at the next tick."""
        try:
            self._open_weights(self._port)
            self._is_open = True
        except EndpointError as error:
            self._is_open = False
            self._log.say("connection", f"no new connection for weights: {error}; this is tried again")

    def _check(self, version: Version) -> None:
        if self._generation is not None and version.generation != self._generation:
            raise ProtocolError(f"version {tuple(version)} in a session of generation {self._generation}")

    def _on_version(self, version: Version) -> None:
        if self._generation is None:
            return
        self._check(version)
        if self._wants_weights:
            self.fetcher.hint(version)
        else:
            self.resident = version if self.resident is None else max(self.resident, version)

    def _on_heartbeat(self, beat: Heartbeat) -> None:
        # Hints are repeated with every beat, so a lost one costs a second.
        if beat.resident is not None:
            self._on_version(beat.resident)

    def _on_weights(self, message: Weights) -> None:
        self._check(message.version)
        self.fetcher.receive(message)

    def _on_gone(self, message: WeightsGone) -> None:
        if message.newest is not None:
            self._check(message.newest)
        self.fetcher.gone(message)
