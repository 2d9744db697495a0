"""A new method is one file and one line of registration."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.config import TrainerOptions
from common.data.sources import open_source
from common.order import Order
from common.selection.methods import load_method
from common.selection.registry import METHODS, Entry
from tests.common.selection import example_method
from tests.common.selection.offers import Way, make, numbers, offer_of
from tests.common.selection.strategies import keyed
from trainer.stream import SelectedBatches

LINE = '"every-other": Entry("every_other:EveryOther"),'


@pytest.fixture
def registered(monkeypatch):
    """The file under the name that it would have, and the line."""
    monkeypatch.setitem(sys.modules, "common.selection.methods.every_other", example_method)
    for name, entry in eval("{" + LINE + "}", {"Entry": Entry}).items():
        monkeypatch.setitem(METHODS, name, entry)


@pytest.mark.usefixtures("registered")
def test_a_new_method_loads_and_selects():
    selection = make("every-other").select(offer_of(Way("loss"), numbers(1, 5, math.nan, 3, 4, 2)), 2, keyed(0))
    assert selection.indices.tolist() == [1, 3]
    assert selection.weights.tolist() == [1, 1]


def test_without_its_line_it_is_unknown():
    with pytest.raises(ValueError, match="must be one of"):
        TrainerOptions(method="every-other")
    with pytest.raises(KeyError):
        load_method("every-other", None)


@pytest.mark.usefixtures("registered")
def test_a_new_method_trains():
    options = TrainerOptions(
        data="digits",
        mode="fresh",
        method="every-other",
        steps=6,
        batch_size=8,
        candidates=32,
        selection={"warmup_fraction": 0.0, "anneal_fraction": 0.0},
    )
    source = open_source(options)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    num_batches = 0
    with SelectedBatches(options, source, model) as batches:
        for batch in batches:
            losses = F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
            ranked = _losses_of_candidates(model, source, options, num_batches)
            assert losses.sort(descending=True).values.tolist() == pytest.approx(ranked[:16:2].tolist(), abs=1e-5)
            optimizer.zero_grad()
            (batch.weights * losses).mean().backward()
            optimizer.step()
            batches.step(losses)
            num_batches += 1
    assert num_batches == 6


def _losses_of_candidates(model, source, options, step):
    """Of the 32 candidates of a step with the weights as they are, from the highest down."""
    ids = Order(source.sample.num_samples, options.seed, "candidates").ids(np.arange(32 * step, 32 * (step + 1)))
    inputs, targets = source.train.fetch(torch.from_numpy(ids))
    with torch.no_grad():
        return F.cross_entropy(model(source.prepare(inputs)), targets, reduction="none").sort(descending=True).values
