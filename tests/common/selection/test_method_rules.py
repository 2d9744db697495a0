"""The rules that hold for every method, in each of its ways to select."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.selection.compose import Composed
from common.selection.method import Setting
from common.selection.methods import load_method
from common.selection.registry import METHODS
from tests import reference
from tests.common.selection.offers import (
    EVERY,
    HARDEST,
    NUM_CLASSES,
    PLANNED,
    POOL,
    SOFT,
    STREAM,
    UNIFORM,
    WITH_REPLACEMENT,
    Way,
    numbers,
    offer_of,
    offers,
    tolerance,
)
from tests.common.selection.strategies import keyed

every_way = pytest.mark.parametrize("way", EVERY, ids=str)
counts = st.integers(0, 12)
seeds = st.integers(0, 2**32)
few = settings(deadline=None, max_examples=12)

NAN, INF = float("nan"), float("inf")


def ready(way: Way, offer) -> object:
    """A method that has seen the offer and is due to select from it."""
    method = way.make(max(len(offer), 1))
    method.observe(offer)
    return method


def test_the_ways_cover_every_method():
    assert {way.name for way in EVERY} == set(METHODS)


@every_way
@given(data=st.data(), num=counts, seed=seeds)
@few
def test_indices_are_in_range_weights_finite_and_dropped_candidates_never_chosen(way, data, num, seed):
    offer = data.draw(offers(way))
    selection = ready(way, offer).select(offer, num, keyed(seed))
    assert selection.indices.dtype == torch.int64
    assert selection.weights.dtype == torch.float32
    assert selection.indices.shape == selection.weights.shape
    assert bool(((selection.indices >= 0) & (selection.indices < len(offer))).all())
    assert bool((selection.weights.isfinite() & (selection.weights >= 0)).all())
    if selection.probability is not None:
        assert selection.probability.shape == selection.indices.shape
        assert bool(((selection.probability >= 0) & (selection.probability <= 1)).all())
    if way.kind != "planned":
        assert bool(offer.available[selection.indices].all())


@pytest.mark.parametrize("way", POOL, ids=str)
@given(data=st.data(), num=counts, seed=seeds)
@few
def test_fewer_finite_candidates_than_asked_for_are_all_chosen_and_the_rest_is_missing(way, data, num, seed):
    offer = data.draw(offers(way))
    num_finite = int(offer.available.sum())
    selection = ready(way, offer).select(offer, num, keyed(seed))
    assert len(selection.indices) == min(num, num_finite)
    assert selection.num_missing == num - len(selection.indices)
    if way not in WITH_REPLACEMENT or num_finite < num:
        assert len(selection.indices.unique()) == len(selection.indices)


@pytest.mark.parametrize("way", STREAM, ids=str)
@given(data=st.data(), num=counts, seed=seeds)
@few
def test_a_stream_chooses_each_at_most_once_and_misses_none(way, data, num, seed):
    offer = data.draw(offers(way))
    selection = ready(way, offer).select(offer, num, keyed(seed))
    assert len(selection.indices.unique()) == len(selection.indices)
    assert selection.num_missing == 0
    if way.epoch == 0:
        assert selection.indices.tolist() == offer.available.nonzero()[:, 0].tolist()


@given(data=st.data(), num=st.integers(0, 25), seed=seeds)
@few
def test_planned_methods_draw_from_all_samples_unknown_ones_too(data, num, seed):
    rank, infobatch = PLANNED
    offer = data.draw(offers(rank))
    selection = ready(rank, offer).select(offer, num, keyed(seed))
    assert len(selection.indices.unique()) == len(selection.indices) == min(num, len(offer))
    assert selection.num_missing == num - len(selection.indices)
    selection = ready(infobatch, offer).select(offer, num, keyed(seed))  # epoch after epoch, however short they are
    assert len(selection.indices) == (num if len(offer) else 0)
    assert selection.num_missing == num - len(selection.indices)


@every_way
@given(data=st.data(), num=counts, seed=seeds, fraction=st.sampled_from([0.0, 0.3]), quota=st.sampled_from([None, 0.5]))
@few
def test_composed_methods_choose_each_at_most_once(way, data, num, seed, fraction, quota):
    offer = data.draw(offers(way))
    method = Composed(ready(way, offer), way.kind, uniform_fraction=fraction, class_quota=quota, weight_cap=3.0)
    selection = method.select(offer, num, keyed(seed))
    assert len(selection.indices.unique()) == len(selection.indices) == len(selection.weights)
    assert bool(selection.weights.isfinite().all())
    assert selection.num_missing >= 0
    if way.kind != "planned":
        assert bool(offer.available[selection.indices].all())
    if way.kind != "stream":
        assert len(selection.indices) <= num - selection.num_missing


@every_way
@given(data=st.data(), num=counts, seed=seeds)
@few
def test_equal_generators_and_states_select_equally_and_leave_global_randomness_alone(way, data, num, seed):
    offer = data.draw(offers(way))
    before = torch.get_rng_state()
    one, other = (ready(way, offer).select(offer, num, keyed(seed)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.weights, other.weights)
    assert (one.probability is None) == (other.probability is None)
    assert one.probability is None or torch.equal(one.probability, other.probability)


@pytest.mark.parametrize("way", HARDEST, ids=str)
@given(data=st.data(), num=counts)
@few
def test_of_equal_scores_the_earlier_candidate_is_chosen_first(way, data, num):
    offer = data.draw(offers(way))
    method = way.make()
    expected = (reference.lowest if way.name == "mms" else reference.highest)(offer.scores[method.scores[0]], num)
    assert method.lowest_is_hard == (way.name == "mms")
    assert method.select(offer, num, keyed(0)).indices.tolist() == expected.tolist()


@pytest.mark.parametrize("way", [*UNIFORM[1:], Way("divbs")], ids=str)
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_with_nothing_to_tell_candidates_apart_the_earliest_are_chosen(way, value):
    offer = offer_of(way, numbers(value, NAN, value, value, INF, value))
    assert ready(way, offer).select(offer, 3, keyed(0)).indices.tolist() == [0, 2, 3]


def test_uniform_takes_what_comes():
    offer = offer_of(Way("uniform"), torch.zeros(6))
    assert Way("uniform").make().select(offer, 3, keyed(0)).indices.tolist() == [0, 1, 2]
    first = torch.arange(6) < 2
    assert Way("uniform").make().select(offer.without(first), 3, keyed(0)).indices.tolist() == [2, 3, 4]


@pytest.mark.parametrize("way", [*SOFT, *WITH_REPLACEMENT], ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, 3e38])
def test_constant_scores_are_sampled_uniformly_without_replacement(way, value):
    num_rounds, num_finite, num = 400, 7, 4
    scores_B = torch.full((num_finite + 2,), value)
    scores_B[2], scores_B[5] = NAN, INF
    offer = offer_of(way, scores_B)
    method = ready(way, offer)
    counts_B = torch.zeros(len(offer))
    for seed in range(num_rounds):
        indices = method.select(offer, num, keyed(seed)).indices
        assert len(indices.unique()) == num
        counts_B[indices] += 1
    expected_B = torch.where(scores_B.isfinite(), num / num_finite, 0.0)
    assert bool(((counts_B / num_rounds - expected_B).abs() <= tolerance(expected_B, num_rounds)).all())


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_losses_do_not_stop_a_stream(value):
    way = Way("selective-backprop", {"beta": 2.0})
    offer = offer_of(way, torch.full((3000,), value))
    selection = ready(way, offer).select(offer, 4, keyed(0))
    share = numbers(1 / 3)  # 1/(beta + 1)
    assert abs(len(selection.indices) / 3000 - share) <= tolerance(share, 3000)
    assert bool((selection.probability == share).all())


@pytest.mark.parametrize("value", [0.0, 2.5, NAN])
def test_constant_losses_of_all_samples_are_a_uniform_draw(value):
    num_samples, num, num_rounds = 6, 3, 400
    offer = offer_of(Way("rank"), torch.full((num_samples,), value))
    counts_N = torch.zeros(num_samples)
    for seed in range(num_rounds):
        counts_N[ready(Way("rank"), offer).select(offer, num, keyed(seed)).indices] += 1
    expected_N = torch.full((num_samples,), num / num_samples)
    assert bool(((counts_N / num_rounds - expected_N).abs() <= tolerance(expected_N, num_rounds)).all())
    selection = ready(Way("infobatch"), offer).select(offer, num_samples, keyed(0))
    assert sorted(selection.indices.tolist()) == list(range(num_samples))
    assert selection.weights.tolist() == [1.0] * num_samples


def test_balanced_classes_with_constant_losses_take_turns():
    offer = offer_of(Way("loss-balanced"), torch.zeros(9))
    chosen = Way("loss-balanced").make().select(offer, 6, keyed(1)).indices
    assert len(chosen.unique()) == 6
    assert offer.targets[chosen].bincount(minlength=NUM_CLASSES).tolist() == [2, 2, 2]


@every_way
@pytest.mark.parametrize("num", [0, 3])
def test_an_empty_offer_gives_an_empty_selection(way, num):
    offer = offer_of(way, torch.empty(0))
    for method in (ready(way, offer), Composed(ready(way, offer), way.kind, uniform_fraction=0.5, class_quota=0.5)):
        method.observe(offer)
        selection = method.select(offer, num, keyed(0))
        assert len(selection.indices) == len(selection.weights) == 0
        assert selection.num_missing == (0 if way.kind == "stream" else num)


@every_way
def test_candidates_that_are_not_finite_leave_the_state_usable(way):
    dropped = offer_of(way, numbers(NAN, INF, -INF))
    method = ready(way, dropped)
    for value in method.state_dict().values():
        assert bool(value.isfinite().all())
    if way.kind != "planned" and way.name != "uniform":  # which looks at no score
        assert len(method.select(dropped, 2, keyed(0)).indices) == 0


def test_rho_loss_without_its_table_says_which_option_gives_it():
    with pytest.raises(ValueError, match="--irreducible"):
        load_method("rho-loss", Setting(4, 2, 2, 10))


@pytest.mark.parametrize(("name", "missing"), [("loss-balanced", "class"), ("divbs", "features")])
def test_a_method_that_lacks_a_part_of_the_offer_says_so(name, missing):
    offer = replace(offer_of(Way(name), torch.ones(4)), targets=None, features=None)
    with pytest.raises(ValueError, match=missing):
        Way(name).make().select(offer, 2, keyed(0))
