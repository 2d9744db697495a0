"""Every method trains: on digits, at default options, to 90 % and more; fresh in this process, stale with a scorer."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from common.config import TrainerOptions
from common.data.sources import open_source
from common.devices import set_threads
from common.models import build_model
from common.selection.registry import METHODS
from tests.service.processes import Processes
from trainer.evaluate import evaluate
from trainer.optimizers import build_optimizer, build_schedule
from trainer.step import train_step
from trainer.stream import SelectedBatches

ACCURACY = 0.9
NEEDS_MORE = ("uniform", "biased-importance", "rho-loss")  # no selection; a predictor; a table of irreducible losses
OF_A_KIND = ("mms", "selective-backprop", "gradient-norm", "infobatch", "divbs", "rank", "cdf-loss")  # the others: slow
FRESH = tuple(
    name if name in OF_A_KIND else pytest.param(name, marks=pytest.mark.slow)
    for name in METHODS
    if name not in NEEDS_MORE
)
STALE = ("divbs", "stale-selective-backprop", "rank")  # a pool with factors, a stream with masks, draws from the ledger


@dataclass
class Trained:
    """A finished run; `counts` holds (candidates visited, candidates scored) after each step."""

    accuracy: float
    origins: dict[str, int]
    staleness_max: int
    counts: list[tuple[int, int]]
    account: dict[str, int]

    def forward_share(self, first_visit: int) -> float:
        """Candidates scored over candidates visited, from that visit on."""
        begin = next(count for count in self.counts if count[0] >= first_visit)
        visited, scored = (last - first for last, first in zip(self.counts[-1], begin, strict=True))
        return scored / visited


def train(method: str, mode: str, *, steps: int, **more: Any) -> Trained:
    """A run of the model `small` in a loop of one's own; a stale one waits for a scorer at its `listen`."""
    settings = {"data": "digits", "model": "small", "device": "cpu", "threads": 1, **more}
    options = TrainerOptions.model_validate({"mode": mode, "method": method, "steps": steps, **settings})
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=options.seed, head=options.head)
    optimizer = build_optimizer(options, model.parameters())
    schedule = build_schedule(optimizer, options, options.steps)
    model.train()
    counts = []
    with SelectedBatches(options, source, model) as batches:
        for batch in batches:
            batches.step(train_step(model, optimizer, schedule, batch, options).losses)
            seen = batches.ledger.seen if batches.ledger is not None else None
            counts.append((0 if seen is None else int(seen.sum()), batches.samples_scored))
        summary = batches.summary()
    accuracy = evaluate(model, source, device=torch.device("cpu")).accuracy
    return Trained(accuracy, summary["steps_by_origin"], summary["staleness_max"], counts, summary.get("leases", {}))


def with_scorer(processes: Processes) -> dict[str, str]:
    """Options of a run for which a scorer process was started."""
    endpoint = processes.endpoint()
    processes.scorer("scorer", endpoint, "--data", "digits")
    return {"listen": endpoint, "fallback": "wait"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    set_threads(1)


@pytest.mark.parametrize("method", FRESH)
def test_each_method_trains_in_fresh_mode(method: str) -> None:
    run = train(method, "fresh", steps=150)
    assert run.accuracy >= ACCURACY
    assert run.origins == {"plain": 23, "fresh": 127}, "warm-up and annealing, else selected"


@pytest.mark.parametrize("method", STALE)
def test_each_kind_of_method_trains_on_what_a_scorer_process_scored(method: str, processes: Processes) -> None:
    run = train(method, "stale", steps=150, **with_scorer(processes))
    assert run.accuracy >= ACCURACY
    assert run.origins == {"plain": 23, "stale": 127}
    assert run.staleness_max <= 64
    account = dict(run.account)
    assert account.pop("leased") == sum(account.values())


@pytest.mark.parametrize("mode", ["fresh", "stale"])
def test_with_a_max_age_of_three_a_third_of_the_visits_needs_a_forward_pass(mode: str, processes: Processes) -> None:
    run = train("stale-selective-backprop", mode, steps=300, **(with_scorer(processes) if mode == "stale" else {}))
    num_samples = 1437
    assert run.counts[-1][0] > 8 * num_samples, "several epochs"
    assert abs(run.forward_share(2 * num_samples) - 1 / 3) < 0.02
    assert abs(run.forward_share(5 * num_samples) - 1 / 3) < 0.02
    if mode == "fresh":
        assert abs(run.forward_share(num_samples) - 1 / 3) < 0.02
    assert run.accuracy >= ACCURACY
