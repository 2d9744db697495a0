"""Every number of a trainer that Prometheus is told, by name: read from what it counts anyway."""

from collections.abc import Callable, Mapping

from common.health.metrics import Metric, counter, gauge
from trainer.checkpoint import Checkpoints
from trainer.health import Watched
from trainer.link_metrics import LINK_METRICS
from trainer.profile import WAIT

STALENESS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def _saved(read: Callable[[Checkpoints], float]) -> Callable[[Watched], float | None]:
    return lambda watched: None if watched.checkpoints is None else read(watched.checkpoints)


def _info(watched: Watched) -> Mapping[tuple[str, ...], float]:
    options = watched.options
    return {(options.mode, options.method, options.data, options.model): 1.0}


def _phases(watched: Watched) -> Mapping[str, float]:
    return {**watched.tally.phases, WAIT: watched.feeder.waited_s}


def _threads(watched: Watched) -> Mapping[str, float]:
    busy = {"feeder": watched.feeder.busy_s}
    return busy if watched.link is None else busy | {"io": watched.link.figures.io_busy_s}


RUN_METRICS: tuple[Metric[Watched], ...] = (
    gauge("run_info", "1, with what the run is", _info, "mode", "method", "data", "model"),
    counter("steps", "optimiser steps completed", lambda w: w.tally.figures.steps),
    gauge("steps_planned", "optimiser steps of the whole run", lambda w: w.options.steps),
    counter("batches", "steps by origin of their batch", lambda w: dict(w.tally.figures.origins), "origin"),
    counter("selecting_steps", "steps outside warm-up and annealing", lambda w: w.tally.figures.selecting_steps),
    counter("fallback_steps", "steps that scored candidates came too late for", lambda w: w.tally.figures.fallbacks),
    counter("degraded_steps", "of these, the ones without any scorer", lambda w: w.tally.figures.degraded_steps),
    counter("degraded_seconds", "seconds that these took", lambda w: w.tally.figures.degraded_s),
    gauge("degraded", "1 while steps fall back and no scorer serves", lambda w: w.tally.figures.is_degraded),
    counter("short_batches", "steps with fewer samples than a batch", lambda w: w.tally.figures.short_batches),
    counter("samples_trained", "samples back-propagated", lambda w: w.tally.figures.samples_trained),
    counter("samples_reused", "of these, leftovers of an earlier step", lambda w: w.tally.figures.reused_samples),
    Metric(
        "histogram",
        "staleness_steps",
        "selected samples by the age of their scores, in steps",
        lambda w: dict(w.tally.figures.staleness_counts),
        bounds=STALENESS,
    ),
    counter("candidates_offered", "candidates that a selection saw", lambda w: w.selector.num_offered),
    counter("candidates_expired", "samples too stale in the queue of a stream", lambda w: w.selector.queue.num_expired),
    counter("scores_remembered", "scores taken from the ledger", lambda w: w.selector.num_remembered),
    counter("phase_seconds", "seconds of the training thread, by what it did", _phases, "phase"),
    counter("thread_busy_seconds", "seconds that the threads beside it worked", _threads, "thread"),
    gauge("start_wait_seconds", "seconds that scorers were waited for at the start", lambda w: w.tally.start_wait_s),
    counter("alarms", "alarms raised", lambda w: w.alarms, "alarm"),
    counter("checkpoints_saved", "checkpoints on disk", _saved(lambda c: c.num_saved)),
    counter("checkpoints_failed", "checkpoints that could not be written", _saved(lambda c: c.num_failed)),
)

METRICS: tuple[Metric[Watched], ...] = RUN_METRICS + LINK_METRICS
