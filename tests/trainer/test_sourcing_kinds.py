"""Steps of pools, streams and draws from the ledger in stale mode: what they take of the pool and tell it."""

import numpy as np
import pytest

from common.errors import TrainingDiverged
from common.protocol import Version
from tests.trainer.chunks import GENERATION, ask_in_vain, make_pool, scored
from tests.trainer.selectors import ids_at, losses, make_ledger
from tests.trainer.test_sourcing import Trainer, ids
from trainer.pool import Pool

NAN = float("nan")


def lease_and_put(pool: Pool, *rows: list[float], step: int = 0) -> None:
    """Chunks of those losses arrive, in order."""
    pool.announce(Version(GENERATION, step))
    for row in rows:
        held = pool.issue(1, credits=8)
        assert pool.put(1, held.lease, losses(held.start, row, step=step))


@pytest.mark.parametrize("method", ["mms", "selective-backprop"])
def test_scorers_that_find_no_finite_score_end_the_run(method: str) -> None:
    pool = make_pool(chunks_per_step=1)
    trainer = Trainer(pool, "wait", method=method)
    pool.announce(Version(GENERATION, 0))
    for _ in range(3):
        held = pool.issue(1, credits=8)
        pool.put(1, held.lease, losses(held.start, [NAN] * 4))
    with pytest.raises(TrainingDiverged, match="step 0: scorers find no finite score in the last 3 sets"):
        trainer.prepare(0)


@pytest.mark.parametrize("method", ["mms", "selective-backprop"])
def test_a_step_whose_candidates_were_all_dropped_is_leased_others(method: str) -> None:
    pool = make_pool(chunks_per_step=1, max_staleness=0)
    trainer = Trainer(pool, "wait", method=method)
    score = "mms" if method == "mms" else "loss"
    pool.announce(Version(GENERATION, 0))
    held = pool.issue(1, credits=8)
    pool.put(1, held.lease, scored(held.start, scores=[NAN] * 4, score=score))

    def wait(timeout_s: float, seen: int) -> None:
        held = pool.issue(1, credits=8)
        assert held is not None, "weights of step 0 are all that there will be"
        pool.put(1, held.lease, scored(held.start, score=score))

    pool.wait = wait  # type: ignore[method-assign]
    assert trainer.prepare(0).origin == "stale"


def test_a_stream_takes_chunks_one_by_one_until_its_queue_holds_a_batch() -> None:
    pool = make_pool(chunks_per_step=2)
    trainer = Trainer(pool, "wait", method="selective-backprop")
    lease_and_put(pool, [1, NAN, NAN, 2], [3, 4, 5, 6], [7, 8, 9, 10])
    first = trainer.prepare(0)
    assert first.ids.tolist() == ids("candidates", [0, 3, 4]), "the first epoch trains on everything"
    assert (first.origin, first.num_candidates) == ("stale", 8)
    second = trainer.prepare(1)
    assert second.ids.tolist() == ids("candidates", [5, 6, 7])
    assert second.num_candidates == 0, "they had queued"
    assert second.staleness.tolist() == [1, 1, 1]
    assert trainer.prepare(2).ids.tolist() == ids("candidates", [8, 9, 10])
    assert pool.account()["consumed"] == 3


def test_a_stream_leases_the_next_chunk_for_the_step_that_will_take_it() -> None:
    pool = make_pool(chunks_per_step=1, max_staleness=0)
    trainer = Trainer(pool, "wait", method="selective-backprop", max_staleness=0)
    lease_and_put(pool, [1, 2, 3, 4])
    ask_in_vain(pool)
    rooms = []
    pool.on_room = lambda: rooms.append(pool.issue(1, credits=8))
    assert trainer.prepare(0).ids.tolist() == ids("candidates", [0, 1, 2])
    assert rooms == [None], "scores by weights of step 0 would be too stale for step 1"
    pool.announce(Version(GENERATION, 1))
    held = pool.issue(1, credits=8)
    pool.put(1, held.lease, losses(held.start, [NAN, NAN, 5, 6], step=1))
    ask_in_vain(pool)

    def wait(timeout_s: float, seen: int) -> None:
        assert rooms[-1] is not None, "this step needs another one"
        pool.put(1, rooms[-1].lease, losses(rooms[-1].start, [7, 8, 9, 10], step=1))

    pool.wait = wait  # type: ignore[method-assign]
    assert trainer.prepare(1).ids.tolist() == ids("candidates", [6, 7, 8])
    assert pool.account()["dropped"] == 0


def test_a_stream_falls_back_once_the_trainer_stands_still_and_keeps_its_queue() -> None:
    pool = make_pool(chunks_per_step=1)
    trainer = Trainer(pool, "reuse", method="selective-backprop")
    trainer.is_awaited = True
    lease_and_put(pool, [1, 2, NAN, NAN])
    batch = trainer.prepare(0)
    assert batch.origin == "fallback", "there is no pool of which the next-best could be taken"
    lease_and_put(pool, [3, 4, 5, 6])
    assert trainer.prepare(1).ids.tolist() == ids("candidates", [0, 1, 4])


def test_remembered_losses_take_part_in_their_turn() -> None:
    ledger = make_ledger("stale-selective-backprop")
    remembered = np.array(ids("candidates", [4, 5, 6, 7]))
    ledger.plan_visit(remembered, 1)
    ledger.scored(remembered, losses=np.ones(4, dtype=np.float32))

    def plan_visit(start: int, stop: int) -> np.ndarray:
        return ledger.plan_visit(np.array(ids("candidates", list(range(start, stop)))), 3)

    pool = make_pool(chunks_per_step=2, plan_visit=plan_visit)
    trainer = Trainer(pool, "wait", method="stale-selective-backprop", ledger=ledger)
    pool.announce(Version(GENERATION, 0))
    first, third = pool.issue(1, credits=8), pool.issue(1, credits=8)
    assert (first.start, third.start) == (0, 8), "nobody need score [4, 8)"
    pool.put(1, third.lease, losses(8, [1, 2, 3, 4]))
    assert pool.put(1, first.lease, losses(0, [1, 2, 3, 4]))
    batches = [trainer.prepare(step) for step in range(4)]
    assert [batch.ids.tolist() for batch in batches] == [
        ids("candidates", positions) for positions in ([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11])
    ]
    assert [len(batch.staleness) for batch in batches] == [3, 1, 1, 3]
    assert pool.account()["consumed"] == 3


def test_forward_passes_whose_chunk_came_too_late_are_remembered() -> None:
    ledger = make_ledger("stale-selective-backprop")
    pool = make_pool(chunks_per_step=1, max_staleness=2)
    trainer = Trainer(pool, "uniform", method="stale-selective-backprop", ledger=ledger)
    trainer.is_awaited = True
    known = ids_at(0, 1, 2, 3)
    ledger.scored(known, losses=np.full(4, 9, dtype=np.float32))
    pool.announce(Version(GENERATION, 0))
    held = pool.issue(1, credits=8)
    pool.put(1, held.lease, losses(held.start, [1, 2, 3], wanted=[True, True, False, True]))
    assert trainer.prepare(3).origin == "fallback"
    assert pool.account()["dropped"] == 1
    assert ledger.losses_of(known).tolist() == [1, 2, 9, 3]
    assert ledger.seen.sum() == 0, "they were not offered"


def test_a_planned_method_draws_from_all_samples_once_anything_is_known() -> None:
    pool = make_pool(chunks_per_step=1)
    ledger = make_ledger("rank")
    trainer = Trainer(pool, "uniform", method="rank", ledger=ledger)
    trainer.is_awaited = True
    assert trainer.prepare(0).origin == "fallback"
    lease_and_put(pool, [1, 2, 3, 4], [5, 6, 7, 8])
    batch = trainer.prepare(1)
    assert (batch.origin, batch.num_candidates, len(batch.staleness)) == ("stale", 8, 0)
    assert pool.account()["consumed"] == 2
    assert ledger.losses_of(ids_at(0, 7)).tolist() == [1, 8]
    assert trainer.prepare(2).num_candidates == 0
    drawn = np.concatenate([trainer.prepare(step).ids for step in range(3, 40)])
    assert len(set(drawn.tolist()) - set(ids_at(*range(8)).tolist())) > 5, "whether scored or not"
