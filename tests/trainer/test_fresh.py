"""Fresh mode: the candidates that scorers would be leased, scored with the weights as they are now."""

from typing import Any

import numpy as np
import pytest
import torch

from common.errors import TrainingDiverged
from tests.trainer.selectors import NUM, ids_at, make_ledger, make_selector
from tests.trainer.test_batch import make_gatherer
from tests.trainer.test_sourcing import ids
from trainer.assembly import Assembly
from trainer.batch import Batch
from trainer.curves import UniformCandidates
from trainer.fresh import FreshCandidates, FreshSelecting, FreshSourcing
from trainer.leases import Pace
from trainer.plan import Plan
from trainer.sourcing import PlainBatches

B = 3


def make_fresh(plan: Plan, *, draws_ahead: int = 2, pace: Pace | None = None) -> FreshSourcing:
    gatherer = make_gatherer()
    return FreshSourcing(
        plan, PlainBatches(gatherer, B), gatherer, chunk_size=4, draws_ahead=draws_ahead, pace=pace
    )  # fmt: skip


def model_with_margins_around(model: torch.nn.Linear, centre: float) -> None:
    """Logits |id - centre| / 10 apart, as samples hold their ids."""
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, 0.0], [0.0, 0.0], [-9.0, -9.0]]))
        model.bias.copy_(torch.tensor([-0.1 * centre, 0.0, -9.0]))


class Fresh:
    """A method in fresh mode, over numbers."""

    def __init__(
        self, method: str, fresh: FreshSourcing, *, scores: tuple[str, ...], max_age: int = 3, **chosen: Any
    ) -> None:
        self.model = torch.nn.Linear(2, 3)
        model_with_margins_around(self.model, 0.0)
        self.uniform = UniformCandidates()
        self.ledger = make_ledger(method)
        selector = make_selector(method, batch_size=2, ledger=self.ledger, max_staleness=64, **chosen)
        reuses = method == "stale-selective-backprop"

        def plan_visit(start: int, stop: int) -> np.ndarray | None:
            return self.ledger.plan_visit(ids_at(*range(start, stop)), max_age) if reuses else None

        assembly = Assembly(selector, scores, True, False, (3, 2), self.ledger, plan_visit, Pace(2, 64, 8, 0, 1000))
        self.fresh = fresh
        self.selecting = FreshSelecting(
            assembly, fresh, fresh._gatherer, self.model, self.model, self.uniform, batch_size=2
        )

    def step(self, step: int) -> Batch:
        prepared = self.fresh.prepare(step)
        assert isinstance(prepared, FreshCandidates)
        return self.selecting.batch(prepared, step)


def test_fresh_candidates_are_the_chunks_that_scorers_would_be_leased() -> None:
    fresh = make_fresh(Plan(9, 1, 8))
    assert fresh.prepare(0).origin == "plain"  # type: ignore[union-attr]
    first, second = fresh.prepare(1), fresh.prepare(2)
    assert isinstance(first, FreshCandidates)
    assert isinstance(second, FreshCandidates)
    assert [len(one) for one in (first, second)] == [8, 8]
    assert [chunk.ids.tolist() for chunk in first.chunks] == [
        ids("candidates", p) for p in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    assert np.concatenate([chunk.ids for chunk in second.chunks]).tolist() == ids("candidates", list(range(8, 16)))
    assert [chunk.inputs[:, 0].tolist() == chunk.ids.tolist() for chunk in first.chunks] == [True, True]
    assert fresh.prepare(8).ids.tolist() == ids("plain", [3, 4, 5])  # type: ignore[union-attr]


def test_fresh_selection_uses_the_weights_as_they_are_now() -> None:
    run = Fresh("mms", make_fresh(Plan(9, 0, 9)), scores=("mms",))
    for step, centre in enumerate((0.0, 22.0)):
        model_with_margins_around(run.model, centre)
        offered = ids("candidates", list(range(8 * step, 8 * step + 8)))
        batch = run.step(step)
        assert batch.ids.tolist() == sorted(offered, key=lambda own: abs(own - centre))[:2]
        assert batch.inputs[:, 0].tolist() == batch.ids.tolist()
        assert (batch.origin, batch.num_candidates, batch.staleness.tolist()) == ("fresh", 8, [0, 0])
        assert {"loss/uniform", "accuracy/uniform"} <= set(run.uniform.take())
    assert run.selecting.num_scored == 16


def test_a_fresh_stream_draws_as_many_chunks_as_it_needs() -> None:
    run = Fresh("selective-backprop", make_fresh(Plan(90, 0, 90), draws_ahead=0), scores=("loss",))
    batches = [run.step(step) for step in range(4)]
    assert [batch.ids.tolist() for batch in batches] == [ids("candidates", [p, p + 1]) for p in (0, 2, 4, 6)]
    assert [batch.num_candidates for batch in batches] == [4, 0, 4, 0]
    assert [batch.inputs[:, 0].tolist() == batch.ids.tolist() for batch in batches] == [True] * 4


def test_a_fresh_stream_of_one_class_keeps_its_quota_and_makes_short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.fresh.MAX_DRAWS", 4)
    one_class = {"class_quota": 0.5, "targets_of": lambda ids: torch.zeros(len(ids), dtype=torch.int64)}
    fresh = make_fresh(Plan(90, 0, 90), draws_ahead=0)
    run = Fresh("selective-backprop", fresh, scores=("loss",), **one_class)
    batches = [run.step(step) for step in range(2)]
    assert [(len(batch), batch.num_missing) for batch in batches] == [(1, 1), (1, 1)]


def test_a_fresh_run_scores_only_what_it_does_not_remember() -> None:
    run = Fresh("stale-selective-backprop", make_fresh(Plan(900, 0, 900), draws_ahead=0), scores=("loss",), max_age=2)
    step = 0
    while run.fresh.next_position < NUM:
        run.step(step)
        step += 1
    in_first_epoch, positions = run.selecting.num_scored, run.fresh.next_position
    assert NUM <= in_first_epoch <= positions
    while run.fresh.next_position < 9 * NUM:
        run.step(step)
        step += 1
    visits = run.fresh.next_position - positions
    assert abs((run.selecting.num_scored - in_first_epoch) / visits - 1 / 2) < 0.05
    assert run.ledger.seen.sum() == run.fresh.next_position
    everything = torch.arange(NUM, dtype=torch.float32)[:, None].repeat(1, 2)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(run.model(everything), torch.arange(NUM) % 3, reduction="none")
    np.testing.assert_allclose(run.ledger.loss, expected, rtol=1e-5)


def test_a_fresh_sweep_scores_all_samples_first_and_then_at_its_rate_without_holding_them() -> None:
    pace = Pace(1, 64, 8, 0, 90, sweep=(NUM, 2.0))
    run = Fresh("rank", make_fresh(Plan(90, 0, 90), draws_ahead=0, pace=pace), scores=("loss",))
    prepared = run.fresh.prepare(0)
    assert len(prepared) == 0, "all samples at once would be the whole data set in memory"
    scored_by = []
    for step in range(12):
        assert run.step(step).origin == "fresh"
        scored_by.append(run.selecting.num_scored)
    assert scored_by == [-(-(NUM + 2 * step) // 4) * 4 for step in range(12)]
    assert np.isfinite(run.ledger.loss).all()


def test_a_fresh_run_without_a_finite_score_has_diverged() -> None:
    for method, score in (("mms", "mms"), ("selective-backprop", "loss")):
        draws_ahead = 2 if method == "mms" else 0
        run = Fresh(method, make_fresh(Plan(9, 0, 9), draws_ahead=draws_ahead), scores=(score,))
        with torch.no_grad():
            run.model.weight.fill_(torch.nan)
        with pytest.raises(TrainingDiverged, match=r"step 0: none of \d+ candidates has a finite score"):
            run.step(0)
