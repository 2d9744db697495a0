"""What the training thread does while it waits: for the first scores of a run, and for the batch of a step."""

import logging
import time
from collections.abc import Callable

from common.errors import PeerTimeout
from common.waiting import reported
from trainer.feeder import STORAGE
from trainer.link import ScorerLink
from trainer.plan import Plan

log = logging.getLogger(__name__)

POLL_S = 0.2
REACHED_S = 10.0  # in which a scorer that serves one rank has found the others, and scored a chunk for each
BATCH_S = 600.0  # for a batch that needs no scorer


def await_first_scores(link: ScorerLink, plan: Plan, completed: int, is_stopped: Callable[[], bool]) -> float:
    """Give scorers time to start: a small run would be over before one has imported torch. Returns seconds waited.

    Ranks start together; one that no scorer reaches keeps the others for `REACHED_S`. Any thread, also a signal
    handler, may end the wait by `attendance.hurry()`.

    Args:
        completed: optimiser steps; a resumed run has some.
        is_stopped: whether the run is to end.
    """
    service, fallback = link.options.service, link.options.fallback
    attendance, sessions = link.service.attendance, link.service.sessions
    log.info("waiting up to %.0f s for the first scored chunk from a scorer at %s", service.start_wait_s, link.endpoint)
    started = time.perf_counter()
    needs_chunk = plan.first_step == completed == 0  # else there may be nothing to score yet
    until = started + service.start_wait_s
    while True:
        is_served = bool(link.pool.num_arrived or (sessions.num_resident and not needs_chunk))
        is_aborted = is_stopped() or attendance.has_begun
        all_of = link.group.gather((is_served, is_aborted, time.perf_counter() > until))
        served, aborted, late = ([of_rank[place] for of_rank in all_of] for place in range(3))
        if all(served) or any(aborted) or any(late):
            break
        if any(served):
            until = min(until, time.perf_counter() + REACHED_S)
        if link.push_wanted:
            link.push(completed)
        link.pool.wait(POLL_S)
    waited_s = time.perf_counter() - started
    attendance.begin()
    if not is_served and not any(aborted):
        log.warning("no scorer after %.0f s; starting under --fallback %s", waited_s, fallback)
    if not any(aborted):
        log.info("start after %.1f s with %d scorers", waited_s, link.num_scorers)
    return waited_s


def wait_for_batch(link: ScorerLink | None, step: int, waited_s: float) -> None:
    """Called now and then between two steps, so the weights stand still: push them if none announced are fresh enough.

    Raises:
        PeerTimeout: it took too long.
        NoScorer: see `ScorerLink.require_scorer`.
    """
    if link is not None:
        link.require_scorer(step)
    if link is None or not link.must_wait(step):
        if waited_s > BATCH_S:
            raise PeerTimeout(reported(f"step {step} waited {waited_s:.0f} s for its batch; {STORAGE}"))
        return
    announced, options = link.pool.announced, link.options
    if announced is None or announced.step < step - options.max_staleness or link.push_wanted:
        link.push(step)
    if link.service.attendance.is_late():
        raise PeerTimeout(
            f"step {step} waited {waited_s:.0f} s for scored candidates when the run was asked to end; ranks save "
            "together, after a step, so the checkpoint before this stands"
        )
    if waited_s > options.service.wait_deadline_s:
        raise PeerTimeout(
            reported(
                f"step {step} waited {waited_s:.0f} s for scored candidates ({link.num_scorers} scorers "
                f"connected); start one with: marginstream scorer --connect {link.endpoint} "
                "or choose --fallback uniform"
            )
        )
