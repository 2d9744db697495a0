import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.selection.select import (
    biased_weights,
    collapse_duplicates,
    importance_weights,
    proportional_probability,
    sample_with_replacement,
    variance_reduction_tau,
)
from tests import reference_select as reference
from tests.common.selection.strategies import keyed, losses, vectors

close = torch.testing.assert_close


@given(st.lists(st.floats(2**-100, 1, width=32), max_size=8), st.integers(1, 1000))
@settings(deadline=None)
def test_importance_weights_are_one_over_b_times_p(probabilities, num_candidates):
    expected = reference.floats([1 / (num_candidates * p) for p in probabilities])
    close(importance_weights(torch.tensor(probabilities, dtype=torch.float32), num_candidates), expected)


def test_importance_weights_of_uniform_draws_are_one_and_never_overflow():
    assert importance_weights(torch.full((3,), 0.125), 8).tolist() == [1, 1, 1]
    tiny_b = torch.tensor([1e-45])
    assert importance_weights(tiny_b, 1).tolist() == [torch.finfo(torch.float32).max]


def test_the_weighted_mean_over_draws_is_unbiased():
    losses_B = torch.tensor([1.0, 2.0, 3.0, 10.0])
    probability_B = proportional_probability(losses_B.sqrt())
    num = 200_000
    indices_b = sample_with_replacement(probability_B, num, keyed(3))
    weights_b = importance_weights(probability_B[indices_b], len(losses_B))
    terms_b = weights_b.double() * losses_B[indices_b].double()
    # five standard errors of the mean of the draws
    assert float(terms_b.mean()) == pytest.approx(4.0, abs=5 * float(terms_b.std()) / math.sqrt(num))


@given(vectors(losses), st.lists(st.integers(0, 9), max_size=6), st.sampled_from([1.0, 0.5, 0.0, -1.0, -3.0]))
@settings(deadline=None)
def test_biased_weights_match_paper_notation(scores_B, draws, k):
    # floored far apart from the rest, w^k of the reference has no float
    scores_B = torch.where(scores_B < 0.01, 0.0, scores_B)
    candidates = scores_B.isfinite().nonzero()[:, 0].tolist()
    indices_b = reference.ints([candidates[draw % len(candidates)] for draw in draws] if candidates else [])
    close(biased_weights(scores_B, indices_b, k), reference.biased_weights(scores_B, indices_b, k))


def test_biased_weights_of_the_worked_example():
    scores_B, indices_b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 3])
    close(biased_weights(scores_B, indices_b, 1), torch.tensor([2.5, 0.625]))
    close(biased_weights(scores_B, indices_b, 0.5), torch.tensor([1.6666667, 0.8333333]))


def test_biased_weights_at_k_one_are_the_importance_weights():
    scores_B, indices_b = torch.tensor([1.0, math.nan, 3.0, 4.0]), torch.tensor([0, 3, 3])
    expected = importance_weights(proportional_probability(scores_B)[indices_b], 3)
    close(biased_weights(scores_B, indices_b, 1), expected)


@pytest.mark.parametrize("value", [0.0, 2.5, 1e38])
@pytest.mark.parametrize("k", [1, 0.5, 0, -100])
def test_biased_weights_of_constant_scores_are_one(value, k):
    close(biased_weights(torch.full((4,), value), torch.tensor([2, 0]), k), torch.ones(2))


def test_biased_weights_stay_finite_at_any_k_and_score():
    scores_B = torch.tensor([0.0, 1e-30, 1.0, 3e38])
    for k in (1, 0.5, -5, -1000, -1e6):
        weights_b = biased_weights(scores_B, torch.arange(4), k)
        assert bool(weights_b.isfinite().all())
        assert bool((weights_b >= 0).all())


@given(vectors(losses))
@settings(deadline=None)
def test_tau_matches_paper_notation_and_lies_between_one_and_root_n(scores_B):
    tau = variance_reduction_tau(scores_B)
    assert tau == pytest.approx(reference.variance_reduction_tau(scores_B), rel=1e-9)
    assert 1 <= tau <= max(1, math.sqrt(int(scores_B.isfinite().sum())))


def test_tau_is_one_for_equal_zero_or_no_scores_and_root_n_for_a_single_positive_one():
    for value in (0.0, 0.1, 5e-324, 1.7e308, math.nan):
        assert variance_reduction_tau(torch.full((7,), value, dtype=torch.float64)) == pytest.approx(1, rel=1e-12)
    assert variance_reduction_tau(torch.empty(0)) == 1
    assert variance_reduction_tau(torch.tensor([0.0, 0.0, 1e-40, 0.0])) == 2
    assert variance_reduction_tau(torch.tensor([1.0, 3.0])) == pytest.approx(math.sqrt(2 * 10 / 16))


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1.0, 0.5, 0.1, 3.0, 0.0])), max_size=12))
@settings(deadline=None)
def test_collapsed_duplicates_keep_the_mean_over_the_draws(draws):
    indices_b = reference.ints([i for i, _ in draws])
    weights_b = reference.floats([w for _, w in draws])
    indices_u, weights_u = collapse_duplicates(indices_b, weights_b)
    expected_u, expected_weights_u = reference.collapse_duplicates(indices_b, weights_b)
    assert torch.equal(indices_u, expected_u)
    close(weights_u, expected_weights_u)
    if draws:
        losses_B = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
        close((weights_u * losses_B[indices_u]).mean(), (weights_b * losses_B[indices_b]).mean())


def test_collapsing_keeps_first_appearance_and_weighs_m_w_u_over_b():
    indices_u, weights_u = collapse_duplicates(torch.tensor([7, 2, 7, 5, 7]), torch.tensor([0.5, 1.0, 0.5, 2.0, 0.5]))
    assert indices_u.tolist() == [7, 2, 5]
    close(weights_u, torch.tensor([3 * 0.5 * 3 / 5, 1 * 3 / 5, 2 * 3 / 5]))
    unique_b = torch.tensor([3, 1, 2])
    assert torch.equal(collapse_duplicates(unique_b, torch.ones(3))[0], unique_b)
    assert torch.equal(collapse_duplicates(unique_b, torch.ones(3))[1], torch.ones(3))


SCORES_B = torch.tensor([1.0, math.nan, 3.0])
FIRST = torch.tensor([0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: importance_weights(torch.tensor([0.5, 0.0]), 2),
            r"probability_b must be in \(0, 1\], got 0.0 at .* 1",
        ),
        (lambda: importance_weights(torch.tensor([math.nan]), 2), r"probability_b must be in \(0, 1\], got nan"),
        (lambda: importance_weights(torch.tensor([1.5]), 2), r"probability_b must be in \(0, 1\], got 1.5"),
        (lambda: importance_weights(torch.tensor([0.5]), 0), "num_candidates must be >= 1, got 0"),
        (lambda: importance_weights(torch.ones(1, 1), 1), "probability_b must be a vector"),
        (lambda: biased_weights(SCORES_B, FIRST, 1.5), "k must be a finite number <= 1, got 1.5"),
        (lambda: biased_weights(SCORES_B, FIRST, -math.inf), "k must be a finite number <= 1, got -inf"),
        (lambda: biased_weights(SCORES_B, FIRST + 1, 1), "indices_b must choose finite scores, got 1 with score nan"),
        (lambda: biased_weights(SCORES_B, FIRST + 3, 1), r"indices_b must be in \[0, 3\), .* got 3"),
        (lambda: biased_weights(SCORES_B, FIRST - 1, 1), r"indices_b must be in \[0, 3\), .* got -1"),
        (lambda: biased_weights(SCORES_B, FIRST.float(), 1), "indices_b must be integers, got torch.float32"),
        (lambda: biased_weights(SCORES_B[None], FIRST, 1), r"scores_B must be a vector, got shape \(1, 3\)"),
        (lambda: variance_reduction_tau(-FIRST - 1), "scores_B must be >= 0, got -1.0 at position 0"),
        (lambda: variance_reduction_tau(SCORES_B[None]), "scores_B must be a vector"),
        (lambda: collapse_duplicates(FIRST, torch.ones(2)), "indices_b and weights_b .* got 1 and 2"),
        (lambda: collapse_duplicates(FIRST.float(), torch.ones(1)), "indices_b must be integers"),
        (lambda: collapse_duplicates(FIRST, torch.ones(1, 1)), "weights_b must be a vector"),
    ],
)
def test_wrong_arguments_are_refused_by_name_with_the_value_seen(call, message):
    with pytest.raises(ValueError, match=message):
        call()
