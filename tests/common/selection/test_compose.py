"""What stands around a method: the uniform share, the quota of classes, the cap on weights, one row per sample."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.selection.compose import Composed
from common.selection.method import Offer, Selection, Stateless
from tests import reference_select
from tests.common.selection.offers import PLANNED, POOL, WITH_REPLACEMENT, Way, make, numbers, offer_of
from tests.common.selection.strategies import keyed

few = settings(deadline=None, max_examples=20)


class Fixed(Stateless):
    """Chooses what it is told, of what is left."""

    scores = ("loss",)
    lowest_is_hard = False

    def __init__(self, indices, weights, probability=None):
        self.selection = Selection(torch.tensor(indices), numbers(*weights), 0, probability)
        self.offers = []

    def select(self, offer, num, generator):
        self.offers.append(offer)
        return self.selection


def offer_with(targets) -> Offer:
    targets = torch.tensor(targets)
    return offer_of(Way("loss"), torch.arange(len(targets), 0.0, -1), targets=targets)


# -- one row for each sample ------------------------------------------------------------------------------------------


def test_steps_of_a_fixed_shape_get_every_draw_with_its_own_weight():
    method = Fixed([3, 1, 3], [0.5, 2.0, 0.5], numbers(0.2, 0.3, 0.2))
    selection = Composed(method, collapse=False).select(offer_with([0, 0, 0, 0]), 3, keyed(0))
    assert selection.indices.tolist() == [3, 1, 3]
    assert selection.weights.tolist() == [0.5, 2.0, 0.5]
    assert selection.probability.tolist() == pytest.approx([0.2, 0.3, 0.2])


def test_a_row_drawn_m_times_among_u_of_b_gets_m_w_u_over_b():
    inner = Fixed([7, 2, 7, 7, 5], [0.5, 2, 0.5, 0.5, 1], numbers(0.4, 0.1, 0.4, 0.4, 0.2))
    selection = Composed(inner).select(offer_with([0] * 8), 5, keyed(0))
    assert selection.indices.tolist() == [7, 2, 5]
    torch.testing.assert_close(selection.weights, numbers(3 * 0.5 * 3 / 5, 2 * 3 / 5, 1 * 3 / 5))
    assert selection.probability.tolist() == pytest.approx([0.4, 0.1, 0.2])
    assert selection.num_missing == 0


def test_the_uniform_share_counts_among_the_draws():
    """b = 6: two uniform ones of weight 1, then row 7 three times and row 3 once; u = 4."""
    inner = Fixed([7, 3, 7, 7], [0.5, 2, 0.5, 0.5], numbers(0.4, 0.1, 0.4, 0.4))
    selection = Composed(inner, uniform_fraction=1 / 3).select(offer_with([0] * 8), 6, keyed(0))
    assert selection.indices.tolist() == [0, 1, 7, 3]
    torch.testing.assert_close(selection.weights, numbers(4 / 6, 4 / 6, 1.5 * 4 / 6, 2 * 4 / 6))
    assert selection.probability.tolist() == pytest.approx([1 / 8, 1 / 8, 0.4, 0.1])


@pytest.mark.parametrize("way", [way for way in POOL if way.name in ("gradient-norm", "biased-importance")], ids=str)
@pytest.mark.parametrize("uniform_fraction", [0.0, 0.5])
def test_the_mean_over_rows_is_the_mean_over_draws(way, uniform_fraction):
    losses_B = torch.rand(16, generator=keyed(0)) ** 8 + 1e-3
    offer, values_B = offer_of(way, losses_B), torch.arange(16.0)
    method = way.make()
    method.observe(offer)
    num_uniform = int(8 * uniform_fraction)
    taken = torch.arange(16) < num_uniform
    drawn = method.select(offer.without(taken) if num_uniform else offer, 8 - num_uniform, keyed(3))
    rows = torch.cat([torch.arange(num_uniform), drawn.indices])
    weights = torch.cat([torch.ones(num_uniform), drawn.weights])
    selection = Composed(method, uniform_fraction=uniform_fraction).select(offer, 8, keyed(3))
    expected_rows, expected_weights = reference_select.collapse_duplicates(rows, weights)
    assert selection.indices.tolist() == expected_rows.tolist()
    torch.testing.assert_close(selection.weights, expected_weights)
    torch.testing.assert_close(
        (selection.weights * values_B[selection.indices]).mean(), (weights * values_B[rows]).mean()
    )


def test_a_cap_bounds_the_weight_of_a_draw():
    selection = Composed(Fixed([1, 2, 3], [9, 0.5, 2]), weight_cap=2.0).select(offer_with([0] * 4), 3, keyed(0))
    assert selection.weights.tolist() == [2, 0.5, 2]
    selection = Composed(Fixed([1, 1, 3], [9, 9, 2]), weight_cap=2.0).select(offer_with([0] * 4), 3, keyed(0))
    torch.testing.assert_close(selection.weights, numbers(2 * 2 * 2 / 3, 2 * 2 / 3))


# -- the uniform share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "num", "expected"), [(0.3, 10, 3), (0.29, 100, 29), (0.57, 100, 57), (0.99, 5, 4)]
)
def test_the_uniform_share_is_a_floor_of_the_batch(fraction, num, expected):
    inner = Fixed([199], [1.0])
    selection = Composed(inner, uniform_fraction=fraction).select(offer_with([0] * 200), num, keyed(0))
    assert selection.indices.tolist() == [*range(expected), 199]
    assert selection.num_missing == num - expected - 1
    assert inner.offers[0].available.tolist() == [False] * expected + [True] * (200 - expected)


@pytest.mark.parametrize("way", POOL, ids=str)
@given(seed=st.integers(0, 2**32), fraction=st.floats(0, 0.99), num=st.integers(0, 14))
@few
def test_what_is_left_never_repeats_and_is_chosen_to_the_last(way, seed, fraction, num):
    offer = offer_of(way, torch.rand(12, generator=keyed(seed)) + 0.01)
    inner = way.make()
    inner.observe(offer)
    method, left, seen = Composed(inner, uniform_fraction=fraction), offer, []
    for round_ in range(3):
        available = left.available.sum()
        selection = method.select(left, num, keyed(seed + round_))
        seen += selection.indices.tolist()
        assert selection.num_missing == max(0, num - available)
        taken = torch.zeros(12, dtype=torch.bool)
        taken[selection.indices] = True
        left = left.without(taken)
    assert len(set(seen)) == len(seen)


def test_planned_methods_take_nothing_that_the_uniform_share_took():
    for way in PLANNED:
        offer = offer_of(way, torch.arange(12.0))
        for seed in range(20):
            selection = Composed(way.make(12), "planned", uniform_fraction=0.5).select(offer, 4, keyed(seed))
            assert len(selection.indices) == 4
            assert selection.num_missing == 0


def test_a_planned_method_keeps_the_losses_of_what_was_taken():
    inner, offer = Fixed([5], [1.0]), offer_of(Way("rank"), torch.arange(12.0))
    uniform = Composed(inner, "planned", uniform_fraction=0.5).select(offer, 2, keyed(0)).indices[:1]
    assert torch.equal(inner.offers[0].scores["loss"], offer.scores["loss"])
    assert inner.offers[0].taken.nonzero()[:, 0].tolist() == uniform.tolist()


def test_uniform_shares_of_all_samples_are_not_the_first_ones():
    chosen = set()
    for seed in range(30):
        method = Composed(make("rank", num_samples=1000), "planned", uniform_fraction=0.5)
        offer = offer_of(Way("rank"), torch.arange(1000.0))
        chosen |= set(method.select(offer, 4, keyed(seed)).indices[:2].tolist())
    assert len(chosen) > 50
    assert max(chosen) > 900


def test_a_stream_passes_all_that_its_first_coin_passed():
    way = Way("selective-backprop")
    offer = offer_of(way, torch.rand(200, generator=keyed(0)))
    inner = way.make()
    inner.observe(offer)
    plain = inner.select(offer, 1, keyed(4)).indices.tolist()
    mixed = Composed(inner, "stream", uniform_fraction=0.5).select(offer, 1, keyed(4))
    assert mixed.indices[: len(plain)].tolist() == plain
    assert len(plain) < len(mixed.indices) == len(mixed.indices.unique()) < 200
    assert mixed.weights.tolist() == [1.0] * len(mixed.indices)
    assert mixed.num_missing == 0


# -- the quota --------------------------------------------------------------------------------------------------------


def test_the_hardest_of_other_classes_take_the_place_of_those_over_the_quota():
    offer = offer_with([0, 0, 0, 0, 1, 0, 1, 2])  # losses fall
    assert Composed(make("loss"), class_quota=0.5).select(offer, 4, keyed(0)).indices.tolist() == [0, 1, 4, 6]
    assert Composed(make("loss"), class_quota=0.25).select(offer, 4, keyed(0)).indices.tolist() == [0, 4, 7]
    assert Composed(make("loss"), class_quota=1.0).select(offer, 4, keyed(0)).indices.tolist() == [0, 1, 2, 3]


def test_a_quota_of_many_classes_sorted_by_hardness_fills_the_batch():
    offer = offer_with([place // 20 for place in range(400)])  # 20 classes, the hardest class first
    selection = Composed(make("loss"), class_quota=0.05).select(offer, 20, keyed(0))
    assert selection.indices.tolist() == list(range(0, 400, 20))


def test_rounding_does_not_enlarge_a_quota():
    offer = offer_with([0] * 100 + [1] * 100 + [2] * 100)
    selection = Composed(make("loss"), class_quota=0.55).select(offer, 100, keyed(0))  # .55 · 100 = 55.00000000000001
    assert offer.targets[selection.indices].bincount().tolist() == [55, 45]


@pytest.mark.parametrize("way", [*POOL, *PLANNED], ids=str)
@given(data=st.data(), num=st.integers(1, 12), quota=st.floats(0.05, 1.0), seed=st.integers(0, 2**32))
@few
def test_no_class_exceeds_its_quota_and_a_batch_is_short_only_when_nothing_else_is_left(way, data, num, quota, seed):
    classes = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=24))
    scores_B = torch.rand(len(classes), generator=keyed(seed)) ** 4 + 1e-3
    offer = offer_of(way, scores_B, targets=torch.tensor(classes))
    inner = way.make(len(classes))
    inner.observe(offer)
    fraction = data.draw(st.sampled_from([0.0, 0.5]))
    selection = Composed(inner, way.kind, uniform_fraction=fraction, class_quota=quota).select(offer, num, keyed(seed))
    most = math.ceil(round(quota * num, 6))
    chosen = offer.targets[selection.indices].bincount(minlength=3)
    assert bool((chosen <= most).all())
    assert len(selection.indices) <= num - selection.num_missing  # draws; repeats are collapsed
    if way.name != "infobatch":  # whose epochs leave some out
        room = int(offer.targets.bincount(minlength=3).clamp(max=most).sum())
        short = max(0, num - room)
        assert selection.num_missing <= short if way in WITH_REPLACEMENT else selection.num_missing == short


def test_infobatch_with_a_quota_never_exceeds_it_and_goes_on():
    targets = torch.tensor([0] * 30 + [1] * 6)
    way, losses_N = Way("infobatch"), torch.rand(36, generator=keyed(0))
    method = Composed(way.make(36), "planned", class_quota=0.5)
    trained = torch.zeros(36)
    for step in range(150):
        selection = method.select(offer_of(way, losses_N, targets=targets), 6, keyed(step))
        assert bool((targets[selection.indices].bincount(minlength=2) <= 3).all())
        trained[selection.indices] += 1
        assert len(method.state_dict()["ids"]) <= 36
    assert bool((trained > 0).all())


def test_a_quota_without_classes_is_an_error():
    offer = Offer({"loss": torch.ones(4)}, torch.arange(4))
    with pytest.raises(ValueError, match="class"):
        Composed(make("loss"), class_quota=0.5).select(offer, 2, keyed(0))


def test_a_method_that_ignores_what_is_taken_does_not_hang():
    offer = offer_with([0, 0, 0, 0])
    selection = Composed(Fixed([0, 1, 2, 3], [1, 1, 1, 1]), class_quota=0.5).select(offer, 4, keyed(0))
    assert selection.indices.tolist() == [0, 1]
    assert selection.num_missing == 2


def test_composed_passes_on_what_belongs_to_the_method():
    inner = make("gradient-norm")
    method = Composed(inner)
    method.observe(offer_of(Way("gradient-norm"), numbers(0, 0, 1)))
    assert method.scores == ("gradient-norm",)
    assert method.figures() == inner.figures() == {"tau_smoothed": pytest.approx(0.1 * 3**0.5)}
    other = Composed(make("gradient-norm"))
    other.load_state_dict(method.state_dict())
    assert other.figures() == method.figures()
