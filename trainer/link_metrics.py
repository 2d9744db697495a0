"""What Prometheus is told of a trainer's scorers, leases, weights and wire; nothing where there are no scorers."""

import math
from collections.abc import Callable, Mapping

from common.health.metrics import Metric, Values, counter, gauge
from trainer.health import Watched
from trainer.link import ScorerLink

OUTCOMES = ("consumed", "expired", "dropped", "skipped")  # of a lease, once it is settled


def _of(read: Callable[[ScorerLink], Values]) -> Callable[[Watched], Values | None]:
    return lambda watched: None if watched.link is None else read(watched.link)


def _outcomes(link: ScorerLink) -> Mapping[str, float]:
    account = link.pool.account()
    return {name: account[name] for name in OUTCOMES}


def _oldest_resident(link: ScorerLink) -> float:
    steps = [session.resident.step for session in link.service.sessions if session.resident is not None]
    return max(0, link.pool.next_step - min(steps)) if steps else math.nan


def _num_stuck(link: ScorerLink) -> float:
    return sum(session.stuck for session in link.service.sessions)


def _announced(link: ScorerLink) -> float:
    return math.nan if link.pool.announced is None else link.pool.announced.step


def _spent(link: ScorerLink) -> Mapping[str, float]:
    return {name.removesuffix("_s"): seconds for name, seconds in link.service.sessions.spent._asdict().items()}


def _audits(link: ScorerLink) -> Mapping[str, float]:
    return {name: link.audits.counts[name] for name in ("asked", "answered", "abandoned")}


def _summed(name: str) -> Callable[[Watched], Values | None]:
    """As in the summary, so far."""
    return _of(lambda link: link.figures.summary()[name])


LINK_METRICS: tuple[Metric[Watched], ...] = (
    gauge("scorers", "scorers that are here", _of(lambda k: k.num_scorers)),
    gauge("scorers_stuck", "of these, the ones that made no progress for long", _of(_num_stuck)),
    gauge("scorers_resident", "of these, the ones that hold weights", _of(lambda k: k.service.sessions.num_resident)),
    gauge("resident_age_steps", "steps since the oldest weights in a scorer were copied", _of(_oldest_resident)),
    counter("scorers_seconds", "seconds of all scorers, by what they did", _of(_spent), "phase"),
    counter("candidates_scored", "scored", _of(lambda k: dict(k.service.traffic.scored)), "backend", "precision"),
    counter("leases", "leases issued", _of(lambda k: k.pool.account()["leased"])),
    counter("leases_settled", "leases by what became of them", _of(_outcomes), "outcome"),
    gauge(
        "leases_outstanding", "leases at scorers, or scored and waiting", _of(lambda k: k.pool.account()["outstanding"])
    ),
    gauge("chunks_ready", "scored chunks that wait to be trained on", _of(lambda k: k.pool.num_ready)),
    counter("chunks_refused", "results that were not taken: late, or twice", _of(lambda k: k.pool.refused()), "reason"),
    counter("events", "what happened with scorers and other peers", _summed("events"), "event"),
    counter("audits", "chunks to be scored twice, by what became of them", _of(_audits), "outcome"),
    counter("pushes", "weights versions made", _summed("pushes")),
    counter("pushes_skipped", "weights versions that no buffer was free for", _summed("pushes_skipped")),
    counter("push_stall_seconds", "seconds that training stood still for pushes", _summed("push_stall_s")),
    gauge("announced_step", "step of the newest weights that scorers were told of", _of(_announced)),
    counter("wire_received_bytes", "bytes from scorers", _summed("wire_bytes_in")),
    counter("wire_sent_bytes", "bytes to scorers", _summed("wire_bytes_out")),
    gauge("alarm", "1 while an alarm holds", _of(lambda k: k.watching.alarms.holding), "alarm"),
)
