"""A restarted selector goes on as if nothing had happened: equal state and equal offers give equal selections."""

import io
from typing import Any

import numpy as np
import pytest
import torch

from common.order import keyed_uint64
from common.protocol import Version
from common.selection.registry import METHODS
from tests.trainer.chunks import GENERATION
from tests.trainer.selectors import make_ledger, make_order, make_selector
from trainer.candidates import Picked
from trainer.chunks import Payload, ScoredChunk

N, CHUNK, B, STEPS = 61, 16, 4, 44
PARAMETERS: dict[str, dict[str, Any]] = {"gradient-norm": {"tau_threshold": 1.2}, "infobatch": {"full_from": 0.9}}


def draw(name: str, *key: int, num: int = CHUNK) -> np.ndarray:
    """(num,) float32, uniform in [0, 1), a function of the key."""
    return (keyed_uint64(0, name, *key, np.arange(num)) / 2**64).astype(np.float32)


class Run:
    """A run in fresh mode as its selector sees it; scores are functions of position and step that fall with time."""

    def __init__(self, method: str) -> None:
        self.entry = METHODS[method]
        self.ledger = make_ledger(method, N)
        parameters = {"max_age": 3, **PARAMETERS.get(method, {})}
        self.selector = make_selector(
            method, num_samples=N, batch_size=B, steps=STEPS, max_staleness=9, ledger=self.ledger, parameters=parameters
        )
        self.position = 0

    def chunk(self, step: int) -> ScoredChunk:
        start, stop = self.position, self.position + CHUNK
        self.position = stop
        ids = make_order(N).ids(np.arange(start, stop))
        wanted = self.ledger.plan_visit(ids, 3) if self.entry.reuses_scores else None
        scores = {}
        for name in self.selector.score_names:
            row = np.exp(3 * draw(name, start, step) - 0.1 * step).astype(np.float32)
            row[draw("dropped", start) < 0.1] = np.nan
            if wanted is not None:
                row[~wanted] = np.nan
            scores[name] = torch.from_numpy(row)
        errors, features = (torch.from_numpy(draw(name, start, num=CHUNK * 3)).view(CHUNK, 3).half() for name in "ef")
        shipped = Payload(torch.arange(CHUNK), torch.from_numpy(ids).float()[:, None], torch.from_numpy(ids))
        return ScoredChunk(
            start, stop, Version(GENERATION, step), scores, wanted, errors=errors, features=features, payload=shipped
        )

    def step(self, step: int) -> Picked:
        needs_chunks = self.entry.needs_scorer or self.entry.kind == "pool"
        if self.entry.kind != "stream" and needs_chunks:
            self.selector.offer([self.chunk(step)], step)
        while (picked := self.selector.pick(step)) is None:
            self.selector.offer([self.chunk(step)], step)
        self.ledger.trained(picked.ids, (picked.ids % 7 + 1).astype(np.float32) / (1 + step))
        return picked

    def saved(self) -> dict[str, Any]:
        file = io.BytesIO()
        torch.save({"selector": self.selector.state_dict(), "position": self.position}, file)
        file.seek(0)
        state: dict[str, Any] = torch.load(file, weights_only=True)
        return state


def selections(run: Run, first: int, stop: int) -> list[tuple[Any, ...]]:
    fields = ("ids", "visits", "version_steps", "weights", "probability", "scores")
    return [
        tuple(torch.as_tensor(getattr(picked, name)).nan_to_num(nan=-1).tolist() for name in fields)
        for picked in (run.step(step) for step in range(first, stop))
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_selector_restored_from_its_state_goes_on_as_the_uninterrupted_one(method: str) -> None:
    at = STEPS // 2
    uninterrupted, interrupted = Run(method), Run(method)
    expected = selections(uninterrupted, 0, STEPS)
    assert selections(interrupted, 0, at) == expected[:at]
    state = interrupted.saved()
    selections(interrupted, at, at + 5)  # what happens later is not in the state

    restored = Run(method)
    restored.selector.load_state_dict(state["selector"])
    restored.position = state["position"]
    assert restored.selector.knows_any == interrupted.selector.knows_any
    assert selections(restored, at, STEPS) == expected[at:]
    for count in ("num_offered", "num_remembered"):
        assert getattr(restored.selector, count) == getattr(uninterrupted.selector, count)
    for name in restored.ledger.fields:
        np.testing.assert_array_equal(getattr(restored.ledger, name), getattr(uninterrupted.ledger, name))


STATEFUL = ("selective-backprop", "stale-selective-backprop", "gradient-norm", "rank", "cdf-loss", "cdf-gradnorm")


@pytest.mark.parametrize("method", [*STATEFUL, "infobatch"])
def test_what_is_restored_matters(method: str) -> None:
    run = Run(method)
    expected = selections(run, 0, STEPS)
    other = Run(method)
    selections(other, 0, STEPS // 2)
    newcomer = Run(method)
    newcomer.position = other.position
    assert selections(newcomer, STEPS // 2, STEPS) != expected[STEPS // 2 :]
