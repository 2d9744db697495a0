"""What the service counted: for the summary and the curves, and kept over restarts."""

import collections
import time
from collections.abc import Mapping
from typing import Any

from common.protocol import PredictorState, Spent
from common.security.credentials import Insecure
from common.security.gate import Gate
from common.transport import IOThread
from trainer.audits import Audits
from trainer.pool import Pool
from trainer.publisher import Publisher
from trainer.service import Service
from trainer.watching import Watching


class LinkFigures:
    """Reads what the parts of a `trainer.link.ScorerLink` count; any thread may ask.

    Args:
        security: of the sockets; None where they are not guarded.
    """

    def __init__(
        self,
        service: Service,
        publisher: Publisher,
        pool: Pool,
        watching: Watching,
        audits: Audits,
        io: IOThread,
        security: Gate | Insecure | None,
    ) -> None:
        self._service, self._publisher, self._pool = service, publisher, pool
        self._watching, self._audits = watching, audits
        self._io, self._security = io, security
        self._opened_at = time.perf_counter()

    @property
    def io_busy_s(self) -> float:
        """Seconds that the thread which talks to scorers worked."""
        return self._io.busy_s

    @property
    def io_age_s(self) -> float:
        """Seconds since that thread came round; it does so ten times a second."""
        return self._io.age_s

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        traffic, publisher = self._service.traffic, self._publisher
        return {
            "leases": self._pool.account(),
            "refused": self._pool.refused(),
            "events": self._events(),
            "audits": dict(self._audits.counts),
            "alarms": dict(self._watching.alarms.counts),
            "pushes": publisher.pushed,
            "pushes_skipped": publisher.skipped,
            "push_stall_s": publisher.stall_s,
            "wire_bytes_in": traffic.bytes_in,
            "wire_bytes_out": traffic.bytes_out,
            "io_thread_fraction": self._io.busy_s / max(time.perf_counter() - self._opened_at, 1e-9),
        }

    def _events(self) -> dict[str, int]:
        """What happened to messages, connections and keys."""
        counters: list[Mapping[str, int]] = [self._service.traffic.events, self._io.events]
        counters += [] if self._security is None else [self._security.events]
        events: collections.Counter[str] = collections.Counter()
        for counter in counters:
            events.update(dict(counter))  # copied in one go: the I/O thread goes on counting
        return dict(events)

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All counters and the predictor; the pool has a state of its own. Sessions begin anew."""
        traffic, publisher, predictor = self._service.traffic, self._publisher, self._service.predictor_state
        return {
            "predictor": None if predictor is None else (predictor.updates, bytes(predictor.state)),
            "audits": self._audits.state_dict(),
            "events": self._events(),
            "scored": dict(traffic.scored),
            "bytes": (traffic.bytes_in, traffic.bytes_out),
            "pushes": (publisher.pushed, publisher.skipped, publisher.stall_s),
            "spent": tuple(self._service.sessions.spent),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Before the link is entered."""
        traffic, publisher = self._service.traffic, self._publisher
        if state["predictor"] is not None:
            self._service.predictor_state = PredictorState(*state["predictor"])
        self._audits.load_state_dict(state["audits"])
        traffic.events.update(state["events"])
        traffic.scored.update(state["scored"])
        traffic.bytes_in, traffic.bytes_out = state["bytes"]
        publisher.pushed, publisher.skipped, publisher.stall_s = state["pushes"]
        self._service.sessions.spent = Spent(*state["spent"])
