"""Where each step's batch comes from: the pool, the plain order, or one of the three fallbacks."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from common.order import Order
from common.protocol import Version
from tests.trainer.chunks import GENERATION, fill, make_pool, scored
from tests.trainer.selectors import NUM, make_selector
from tests.trainer.test_batch import make_gatherer
from trainer.batch import Batch
from trainer.feeder import Stopped
from trainer.ledger import Ledger
from trainer.plan import Plan
from trainer.pool import Pool
from trainer.sourcing import PlainBatches, StaleSourcing
from trainer.state import copied

B = 3
NAN = float("nan")


class Trainer:
    """The training thread as the sourcing sees it."""

    def __init__(
        self,
        pool: Pool,
        fallback: str,
        *,
        first_step: int = 0,
        stop_step: int = 1000,
        method: str = "mms",
        ledger: Ledger | None = None,
        max_staleness: int = 4,
    ) -> None:
        self.is_awaited = False
        self.is_stopping = False
        self.finished: list[int] = []
        gatherer = make_gatherer()
        self.plain = PlainBatches(gatherer, B)
        self.sourcing = StaleSourcing(
            Plan(1000, first_step, stop_step),
            self.plain,
            gatherer,
            pool,
            make_selector(method, batch_size=B, ledger=ledger, max_staleness=max_staleness),
            max_staleness=max_staleness,
            fallback=fallback,
            is_awaited=lambda: self.is_awaited,
            rest=self.rest,
            on_finish=lambda: self.finished.append(1),
        )
        self.prepare: Callable[[int], Batch] = self.sourcing.prepare

    def rest(self) -> None:
        if self.is_stopping:
            raise Stopped


def ids(stream: str, positions: list[int]) -> list[int]:
    return Order(NUM, 0, stream).ids(np.array(positions)).tolist()


def test_ready_chunks_make_a_stale_batch_of_the_hardest() -> None:
    pool = make_pool(chunks_per_step=2)
    fill(pool, 2, step=1)
    batch = Trainer(pool, "uniform").prepare(3)
    assert (batch.origin, batch.num_candidates) == ("stale", 8)
    assert batch.ids.tolist() == ids("candidates", [0, 1, 2])
    assert batch.staleness.tolist() == [2, 2, 2]


def test_warm_up_and_annealing_are_plain_and_take_no_chunk() -> None:
    pool = make_pool(chunks_per_step=1, first_step=2, stop_step=4)
    trainer = Trainer(pool, "uniform", first_step=2, stop_step=4)
    assert [trainer.prepare(step).origin for step in (0, 1)] == ["plain", "plain"]
    fill(pool, 2)
    assert [trainer.prepare(step).origin for step in (2, 3)] == ["stale", "stale"]
    assert trainer.finished == []
    assert [trainer.prepare(step).origin for step in (4, 5)] == ["plain", "plain"]
    assert trainer.finished == [1], "told once that selection is over"
    assert pool.account()["consumed"] == 2


def test_plain_batches_walk_their_own_order_without_gaps() -> None:
    trainer = Trainer(make_pool(), "uniform", first_step=5)
    seen = [trainer.prepare(step).ids.tolist() for step in range(3)]
    assert seen == [ids("plain", [0, 1, 2]), ids("plain", [3, 4, 5]), ids("plain", [6, 7, 8])]


def test_fallback_uniform_gives_a_plain_batch_only_once_the_trainer_stands_still() -> None:
    pool = make_pool(chunks_per_step=1)
    trainer = Trainer(pool, "uniform")
    looks = []

    def wait(timeout_s: float, seen: int) -> None:
        looks.append(timeout_s)
        trainer.is_awaited = len(looks) == 2

    pool.wait = wait  # type: ignore[method-assign]
    batch = trainer.prepare(0)
    assert batch.origin == "fallback"
    assert not batch.is_selected
    assert len(looks) == 2, "as long as training goes on it waits for better"
    assert batch.ids.tolist() == ids("plain", [0, 1, 2])


def test_the_fallback_keeps_a_plain_batch_warm_and_loses_none() -> None:
    pool = make_pool(chunks_per_step=1)
    trainer = Trainer(pool, "uniform")
    fill(pool, 1)
    assert trainer.prepare(0).origin == "stale"
    trainer.is_awaited = True
    trainer.plain._gatherer = None  # type: ignore[assignment]
    assert trainer.prepare(1).ids.tolist() == ids("plain", [0, 1, 2]), "no read was needed"


def test_chunks_come_before_the_fallback_also_when_the_trainer_stands_still() -> None:
    pool = make_pool(chunks_per_step=1)
    trainer = Trainer(pool, "uniform")
    trainer.is_awaited = True
    fill(pool, 1)
    assert trainer.prepare(0).origin == "stale"


def test_chunks_too_stale_at_the_step_of_use_are_dropped_and_the_fallback_applies() -> None:
    pool = make_pool(chunks_per_step=1, max_staleness=4)
    trainer = Trainer(pool, "uniform")
    trainer.is_awaited = True
    fill(pool, 2, step=0)
    assert trainer.prepare(4).staleness.tolist() == [4, 4, 4]
    assert trainer.prepare(5).origin == "fallback"
    assert pool.account()["dropped"] == 1


def test_fallback_reuse_takes_the_next_best_of_the_last_pool() -> None:
    pool = make_pool(chunks_per_step=2)
    trainer = Trainer(pool, "reuse")
    fill(pool, 2, step=1)
    assert trainer.prepare(1).ids.tolist() == ids("candidates", [0, 1, 2])
    trainer.is_awaited = True
    batch = trainer.prepare(2)
    assert (batch.origin, batch.num_candidates) == ("reused", 0)
    assert batch.ids.tolist() == ids("candidates", [3, 4, 5])
    assert batch.staleness.tolist() == [1, 1, 1]
    assert trainer.prepare(3).origin == "fallback", "two are left, which make no batch"


def test_fallback_reuse_respects_max_staleness() -> None:
    pool = make_pool(chunks_per_step=2)
    trainer = Trainer(pool, "reuse")
    fill(pool, 2, step=1)
    trainer.prepare(1)
    trainer.is_awaited = True
    assert trainer.prepare(5).staleness.tolist() == [4, 4, 4]
    pool = make_pool(chunks_per_step=2)
    trainer = Trainer(pool, "reuse")
    fill(pool, 2, step=1)
    trainer.prepare(1)
    trainer.is_awaited = True
    assert trainer.prepare(6).origin == "fallback"


def test_fallback_reuse_without_an_earlier_pool_is_plain() -> None:
    trainer = Trainer(make_pool(), "reuse")
    trainer.is_awaited = True
    assert trainer.prepare(0).origin == "fallback"


def test_fallback_wait_waits_for_chunks_although_the_trainer_stands_still() -> None:
    pool = make_pool(chunks_per_step=1)
    trainer = Trainer(pool, "wait")
    trainer.is_awaited = True
    looks = []

    def wait(timeout_s: float, seen: int) -> None:
        looks.append(timeout_s)
        if len(looks) == 3:
            fill(pool, 1)

    pool.wait = wait  # type: ignore[method-assign]
    assert trainer.prepare(0).origin == "stale"
    assert len(looks) == 3


@pytest.mark.parametrize("fallback", ["uniform", "wait"])
def test_the_end_of_the_run_ends_the_wait(fallback: str) -> None:
    trainer = Trainer(make_pool(), fallback)
    trainer.is_stopping = True
    with pytest.raises(Stopped):
        trainer.prepare(0)


def test_a_waiting_feeder_thread_goes_on_when_a_chunk_arrives() -> None:
    pool = make_pool(chunks_per_step=1)
    trainer, done = Trainer(pool, "wait"), []
    thread = threading.Thread(target=lambda: done.append(trainer.prepare(0)))
    thread.start()
    fill(pool, 1)
    thread.join(10)
    assert done[0].origin == "stale"


def test_chunks_whose_candidates_were_all_dropped_make_no_batch() -> None:
    pool = make_pool(chunks_per_step=1)
    trainer = Trainer(pool, "uniform")
    trainer.is_awaited = True
    pool.announce(Version(GENERATION, 0))
    for scores in ([NAN] * 4, [NAN, 5.0, 1.0, NAN]):
        held = pool.issue(1, credits=8)
        pool.put(1, held.lease, scored(held.start, scores=scores))
    batch = trainer.prepare(0)
    assert batch.origin == "stale"
    assert batch.ids.tolist() == ids("candidates", [6, 5]), "a short batch rather than none"
    assert trainer.prepare(1).origin == "fallback"


def test_a_restored_sourcing_reads_the_plain_batch_in_stock_anew_and_knows_what_its_step_was_offered() -> None:
    pool = make_pool(chunks_per_step=1)
    fill(pool, 1)
    trainer = Trainer(pool, "uniform", method="selective-backprop")
    trainer.is_stopping = True  # where it waits: a state is taken there too
    with pytest.raises(Stopped):
        trainer.prepare(0)
    state = copied(trainer.sourcing.state_dict())
    assert (state["offered"], state["plain"]["next_position"]) == (4, 0)
    again = Trainer(make_pool(chunks_per_step=1), "uniform", method="selective-backprop")
    again.sourcing.load_state_dict(state)
    again.is_stopping = True
    with pytest.raises(Stopped):
        again.prepare(0)
    assert again.sourcing.state_dict()["offered"] == 4
    again.is_awaited, again.is_stopping = True, False
    assert again.prepare(1).ids.tolist() == ids("plain", [0, 1, 2])
    assert again.sourcing.state_dict()["offered"] == 0
