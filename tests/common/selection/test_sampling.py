import math
from collections import Counter
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.selection.select import (
    coins,
    inverse_cdf,
    proportional_probability,
    sample_with_replacement,
    sample_without_replacement,
)
from tests import reference_select as reference
from tests.common.selection.strategies import five_sigma, keyed, losses, uniforms, vectors

seeds = st.integers(0, 2**32)
dyadic = st.lists(st.integers(0, 63).map(lambda k: k / 64), max_size=14).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


@given(vectors(losses), dyadic)
@settings(deadline=None)
def test_inverse_cdf_matches_exact_fractions(scores_B, uniforms_b):
    assert torch.equal(inverse_cdf(scores_B, uniforms_b), reference.inverse_cdf(scores_B, uniforms_b))


def test_inverse_cdf_takes_the_first_position_whose_cumulative_share_reaches_u():
    scores_B = torch.tensor([1.0, 0.0, 4.0, 3.0])  # descending: 2 3 0 1, cumulative shares 1/2 7/8 1 1
    uniforms_b = torch.tensor([0.0, 0.5, 0.5001, 0.875, 0.8751, 0.9999])
    assert inverse_cdf(scores_B, uniforms_b).tolist() == [2, 2, 3, 3, 0, 0]


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-45, 3e38])
def test_scores_without_an_order_do_not_select_one_candidate_b_times(value):
    scores_B = torch.tensor([math.nan, *[value] * 6, math.inf])
    for seed in range(20):
        drawn = inverse_cdf(scores_B, uniforms(15, seed)).tolist()
        assert sorted(drawn[:6]) == sorted(drawn[6:12]) == [1, 2, 3, 4, 5, 6]
        assert len(set(drawn[12:])) == 3
    assert inverse_cdf(torch.full((3,), math.nan), uniforms(5, 0)).tolist() == []


def test_inverse_cdf_survives_sums_beyond_double_precision():
    scores_B = torch.tensor([1.7e308, 1.7e308, 0.85e308], dtype=torch.float64)
    assert inverse_cdf(scores_B, torch.tensor([0.3, 0.7, 0.9])).tolist() == [0, 1, 2]


@given(vectors(losses), st.integers(0, 12), seeds)
@settings(deadline=None)
def test_sampling_without_replacement_matches_exponential_clocks(scores_B, num, seed):
    drawn_b = sample_without_replacement(scores_B, num, keyed(seed))
    expected_b = reference.sample_without_replacement(scores_B, num, uniforms(len(scores_B), seed))
    assert torch.equal(drawn_b, expected_b)


def test_draws_without_replacement_come_in_the_order_and_with_the_odds_of_successive_draws():
    p = [0.5, 0.3, 0.2]
    num_draws = 4000
    seen = Counter(tuple(sample_without_replacement(torch.tensor(p), 2, keyed(seed)).tolist()) for seed in range(4000))
    for i, j in permutations(range(3), 2):
        expected = p[i] * p[j] / (1 - p[i])
        assert seen[i, j] / num_draws == pytest.approx(expected, abs=five_sigma(expected, num_draws))


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_constant_probabilities_draw_uniformly_without_replacement(value):
    probability_B = torch.tensor([value, value, math.nan, value, value])
    num_draws = 2000
    inclusion_B = torch.zeros(5)
    for seed in range(num_draws):
        drawn_b = sample_without_replacement(probability_B, 3, keyed(seed))
        assert len(set(drawn_b.tolist())) == 3
        inclusion_B[drawn_b] += 1
    expected_B = torch.tensor([0.75, 0.75, 0, 0.75, 0.75])
    assert float((inclusion_B / num_draws - expected_B).abs().max()) < five_sigma(0.75, num_draws)


def test_the_positive_ones_come_first_and_dropped_ones_never():
    probability_B = torch.tensor([0.0, 0.1, math.nan, 0.0, 1e-40, math.inf])
    for seed in range(20):
        drawn = sample_without_replacement(probability_B, 6, keyed(seed)).tolist()
        assert set(drawn[:2]) == {1, 4}
        assert set(drawn[2:]) == {0, 3}
    assert sample_without_replacement(torch.full((3,), math.nan), 2, keyed(0)).tolist() == []


def test_dropped_candidates_marked_with_nan_stay_out_even_when_all_else_is_taken():
    scores_B = torch.tensor([0.0, math.nan, 2.0, 0.0])
    probability_B = torch.where(scores_B.isfinite(), proportional_probability(scores_B), math.nan)
    assert sorted(sample_without_replacement(probability_B, 4, keyed(0)).tolist()) == [0, 2, 3]


def test_probabilities_of_very_different_size_are_told_apart():
    probability_B = torch.tensor([1e-300, 1.0, 1e-200, 1e-100], dtype=torch.float64)
    for seed in range(20):
        assert sample_without_replacement(probability_B, 4, keyed(seed)).tolist() == [1, 3, 2, 0]


@given(vectors(losses), st.integers(0, 12), seeds)
@settings(deadline=None)
def test_sampling_with_replacement_is_the_inverse_cdf_at_random_numbers(scores_B, num, seed):
    expected_b = inverse_cdf(scores_B, uniforms(num, seed))
    assert torch.equal(sample_with_replacement(scores_B, num, keyed(seed)), expected_b)


def test_draws_with_replacement_have_the_shares_of_their_probabilities():
    probability_B = torch.tensor([0.1, 0.0, 0.6, math.nan, 0.3])
    num_draws = 100_000
    drawn_b = sample_with_replacement(probability_B, num_draws, keyed(5))
    for i, expected in enumerate([0.1, 0, 0.6, 0, 0.3]):
        share = float((drawn_b == i).double().mean())
        assert share == pytest.approx(expected, abs=five_sigma(expected, num_draws))


@pytest.mark.slow
@pytest.mark.parametrize("sample", [sample_with_replacement, sample_without_replacement])
def test_more_candidates_than_multinomial_takes_can_be_drawn(sample):
    probability_B = torch.zeros(2**24 + 2)
    probability_B[-1], probability_B[-2] = 0.75, 0.25
    assert {2**24, 2**24 + 1} == {
        *sample(probability_B, 2, keyed(0)).tolist(),
        *sample(probability_B, 2, keyed(1)).tolist(),
    }


@given(vectors(st.one_of(st.floats(0, 1, width=32), st.just(math.nan), st.just(math.inf))), seeds)
@settings(deadline=None)
def test_coins_match_one_uniform_number_each(probability_B, seed):
    expected_B = reference.coins(probability_B, uniforms(len(probability_B), seed))
    assert torch.equal(coins(probability_B, keyed(seed)), expected_B)


def test_coins_fall_with_their_probability_and_independently():
    probability_B = torch.tensor([0.0, 1.0, 0.25, 0.5, math.nan])
    num_draws = 2000
    tossed = torch.stack([coins(probability_B, keyed(seed)) for seed in range(num_draws)]).double()
    for share, expected in zip(tossed.mean(dim=0).tolist(), [0, 1, 0.25, 0.5, 0], strict=True):
        assert share == pytest.approx(expected, abs=five_sigma(expected, num_draws))
    both = float((tossed[:, 2] * tossed[:, 3]).mean())
    assert both == pytest.approx(0.125, abs=five_sigma(0.125, num_draws))


ONE_B = torch.ones(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inverse_cdf(-ONE_B, ONE_B / 2), "scores_B must be >= 0, got -1.0 at position 0"),
        (lambda: inverse_cdf(ONE_B, ONE_B), r"uniforms_b must be in \[0, 1\), got 1.0 at position 0"),
        (lambda: inverse_cdf(ONE_B, torch.tensor([0.5, math.nan])), r"uniforms_b .* got nan at position 1"),
        (lambda: inverse_cdf(ONE_B[None], ONE_B / 2), r"scores_B must be a vector, got shape \(1, 2\)"),
        (lambda: inverse_cdf(ONE_B, ONE_B[None] / 2), "uniforms_b must be a vector"),
        (lambda: sample_without_replacement(-ONE_B, 1, keyed(0)), "probability_B must be >= 0, got -1.0"),
        (lambda: sample_without_replacement(ONE_B, -1, keyed(0)), "num must be >= 0, got -1"),
        (lambda: sample_without_replacement(ONE_B, 1, None), "generator must be a torch.Generator .* got None"),
        (lambda: sample_with_replacement(-ONE_B, 1, keyed(0)), "probability_B must be >= 0, got -1.0"),
        (lambda: sample_with_replacement(ONE_B, -1, keyed(0)), "num must be >= 0, got -1"),
        (lambda: sample_with_replacement(ONE_B, 1, None), "generator must be a torch.Generator .* got None"),
        (lambda: coins(ONE_B * 1.5, keyed(0)), "probability_B must be <= 1, got 1.5 at position 0"),
        (lambda: coins(-ONE_B, keyed(0)), "probability_B must be >= 0, got -1.0 at position 0"),
        (lambda: coins(ONE_B, None), "generator must be a torch.Generator .* got None"),
    ],
)
def test_wrong_arguments_are_refused_by_name_with_the_value_seen(call, message):
    with pytest.raises(ValueError, match=message):
        call()
