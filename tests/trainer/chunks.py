"""Scored chunks and small pools for tests."""

from collections.abc import Callable

import torch
from torch import Tensor

from common.protocol import Version
from trainer.chunks import Payload, ScoredChunk
from trainer.leases import LeaseBook, Pace, Wanted
from trainer.pool import Pool

GENERATION = 7


def scored(
    start: int,
    num: int = 4,
    *,
    step: int = 0,
    scores: list[float] | None = None,
    score: str = "mms",
    payload: Payload | None = None,
) -> ScoredChunk:
    """A chunk whose scores are given, or equal its positions."""
    values: Tensor = (
        torch.arange(start, start + num, dtype=torch.float32)
        if scores is None
        else torch.tensor(scores, dtype=torch.float32)
    )
    return ScoredChunk(start, start + num, Version(GENERATION, step), {score: values}, payload=payload)


def make_pool(
    *,
    chunk_size: int = 4,
    chunks_per_step: int = 2,
    min_candidates: int = 4,
    exact: bool = True,
    max_staleness: int = 4,
    push_every: int = 1,
    first_step: int = 0,
    stop_step: int = 1000,
    sweep: tuple[int, float] | None = None,
    plan_visit: Callable[[int, int], Wanted] = lambda start, stop: None,
) -> Pool:
    pace = Pace(chunks_per_step, max_staleness, push_every, first_step, stop_step, sweep)
    book = LeaseBook(chunk_size, pace, plan_visit)
    return Pool(book, min_candidates=min_candidates, chunks_per_step=chunks_per_step, exact=exact)


def ask_in_vain(pool: Pool) -> None:
    """A scorer with nothing to do gets no lease: whoever makes room has to tell."""
    assert pool.issue(1, credits=-(1 << 20)) is None


def fill(pool: Pool, num: int, *, step: int = 0, session: int = 1) -> list[int]:
    """Announce `step`, lease and answer `num` chunks; their starts."""
    pool.announce(Version(GENERATION, step))
    starts = []
    for _ in range(num):
        held = pool.issue(session, credits=64)
        assert held is not None, "the pool leases no more"
        assert pool.put(session, held.lease, scored(held.start, held.stop - held.start, step=step))
        starts.append(held.start)
    return starts
