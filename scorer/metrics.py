"""Every number of a scorer that Prometheus is told, by name: read from what it counts anyway."""

import math
import time
from collections.abc import Mapping

from common.health.metrics import Metric, counter, gauge
from scorer.health import Watched


def _info(watched: Watched) -> Mapping[tuple[str, ...], float]:
    hello = watched.ranks.hello
    return {(hello.name, hello.device, hello.precision, hello.backend): 1.0}


def _seconds(watched: Watched) -> Mapping[str, float]:
    return {name.removesuffix("_s"): seconds for name, seconds in watched.stopwatch.spent()._asdict().items()}


def _resident_step(watched: Watched) -> float:
    resident = watched.ranks.versions.resident
    return math.nan if resident is None else resident.step


def _newest_step(watched: Watched) -> float:
    newest = watched.ranks.versions.fetcher.newest
    return math.nan if newest is None else newest.step


def _num_leases(watched: Watched) -> float:
    return sum(len(dialogue.inbox.leases) for dialogue in watched.ranks)


METRICS: tuple[Metric[Watched], ...] = (
    gauge("scorer_info", "1, with what the scorer is", _info, "name", "device", "precision", "backend"),
    gauge("scorer_in_session", "1 while a trainer knows it", lambda w: w.ranks.first.welcome is not None),
    gauge("scorer_ranks_in_session", "the trainer's ranks that know it", lambda w: w.ranks.num_in_session),
    gauge(
        "scorer_unheard_seconds",
        "since the trainer's last word",
        lambda w: time.monotonic() - w.ranks.first.heard_at,
    ),
    gauge("scorer_leases_held", "leases to serve", _num_leases),
    counter("scorer_chunks", "chunks scored, wanted in the end or not", lambda w: w.ranks.state.progress),
    counter("scorer_phase_seconds", "seconds of this session, by what it did", _seconds, "phase"),
    gauge("scorer_resident_step", "step of the weights that it scores with", _resident_step),
    gauge("scorer_newest_step", "step of the newest weights that it heard of and fetches", _newest_step),
    counter("scorer_events", "what happened with the trainer", lambda w: dict(w.ranks.state.events), "event"),
)
