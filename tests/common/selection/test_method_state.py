"""A checkpoint in the middle of a run: what follows is bitwise what would have followed."""

import io
from dataclasses import replace

import pytest
import torch

from tests.common.selection.offers import BATCH_SIZE, EVERY, Way, offer_of
from tests.common.selection.strategies import keyed

STATEFUL = {
    "selective-backprop",
    "stale-selective-backprop",
    "gradient-norm",
    "cdf-loss",
    "cdf-gradnorm",
    "rank",
    "infobatch",
}
NUM_SAMPLES, NUM_OFFERS, SAVED_AFTER = 24, 12, 7

CHANGING = [  # ways whose state decides about the offers below
    *(way for way in EVERY if way.name not in ("gradient-norm", "cdf-loss", "cdf-gradnorm", "rank")),
    Way("rank", {"batch_size": 1, "steps": NUM_OFFERS}),  # renews its ranks at every third step
    Way("gradient-norm", {"tau_threshold": 0.6}),  # tau is between 1.1 and 1.3, and its average passes .6 on the way
    *(
        Way(name, state={"state": torch.tensor([10.0, 1.0, 1.0, 0.0]).double()})
        for name in ("cdf-loss", "cdf-gradnorm")
    ),
]


def offers_of(way: Way) -> list:
    """Offers whose losses fall, at the progress of a run."""
    rows = [torch.rand(NUM_SAMPLES, generator=keyed(step)) * 0.9**step for step in range(NUM_OFFERS)]
    return [offer_of(way, row, progress=step / NUM_OFFERS) for step, row in enumerate(rows)]


def steps(method, offers, start: int) -> list:
    selections = []
    for step, offer in enumerate(offers, start=start):
        method.observe(offer)
        selections.append(method.select(offer, BATCH_SIZE, keyed(100 + step)))
    return selections


def equal(one, other) -> bool:
    return (
        torch.equal(one.indices, other.indices)
        and torch.equal(one.weights, other.weights)
        and one.num_missing == other.num_missing
        and (one.probability is None) == (other.probability is None)
        and (one.probability is None or torch.equal(one.probability, other.probability))
    )


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", CHANGING, ids=str)
def test_a_loaded_state_goes_on_bitwise_as_the_uninterrupted_method(way):
    offers = offers_of(way)
    method = way.make(NUM_SAMPLES)
    steps(method, offers[:SAVED_AFTER], 0)
    saved = through_a_file(method.state_dict())
    assert bool(saved) == (way.name in STATEFUL)
    expected = steps(method, offers[SAVED_AFTER:], SAVED_AFTER)

    loaded = way.make(NUM_SAMPLES)
    loaded.load_state_dict(saved)
    actual = steps(loaded, offers[SAVED_AFTER:], SAVED_AFTER)
    assert all(map(equal, actual, expected))
    assert loaded.figures() == pytest.approx(method.figures(), nan_ok=True)

    if way.name in STATEFUL and way.epoch > 0:  # without it something else would have followed
        forgetful = steps(way.make(NUM_SAMPLES), offers[SAVED_AFTER:], SAVED_AFTER)
        assert not all(map(equal, forgetful, expected))


@pytest.mark.parametrize("way", CHANGING, ids=str)
def test_a_state_is_a_copy(way):
    offers = offers_of(way)
    method = way.make(NUM_SAMPLES)
    steps(method, offers[:2], 0)
    state = method.state_dict()
    before = through_a_file(state)
    loaded = way.make(NUM_SAMPLES)
    loaded.load_state_dict(state)
    steps(method, offers[2:], 2)
    steps(loaded, offers[2:], 2)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("way", [way for way in EVERY if way.kind != "planned"], ids=str)
def test_selecting_changes_nothing_that_was_learned(way):
    """The rest of an offer may be chosen from again; planned methods go on in their plan instead."""
    offer = offers_of(way)[0]
    method = way.make(NUM_SAMPLES)
    method.observe(offer)
    before = through_a_file(method.state_dict())
    first = method.select(offer, BATCH_SIZE, keyed(0))
    method.select(replace(offer, progress=0.5), BATCH_SIZE, keyed(1))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert equal(method.select(offer, BATCH_SIZE, keyed(0)), first)
