import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.selection.select import (
    coins,
    exponential_rank_probability,
    never_all_zero,
    percentile_probability,
    pressure_at,
    proportional_probability,
    rank_power_probability,
)
from tests import reference_select as reference
from tests.common.selection.strategies import keyed, losses, vectors

close = torch.testing.assert_close


@given(vectors(losses), vectors(losses), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), st.sampled_from(["strict", "mid"]))
@settings(deadline=None)
def test_percentile_probability_matches_counting(losses_B, older_H, beta, kind):
    history_H = torch.cat([older_H, losses_B])
    expected = reference.percentile_probability(losses_B, history_H, beta, kind)
    close(percentile_probability(losses_B, history_H, beta, kind), expected)


def test_percentiles_of_the_worked_example_with_the_batch_already_in_the_history():
    batch_B = torch.tensor([0.25, 0.5])
    history_H = torch.cat([torch.tensor([0.1, 0.2, 0.3, 0.4]), batch_B])
    close(percentile_probability(batch_B, history_H, 1), torch.tensor([1 / 3, 5 / 6]))
    close(percentile_probability(batch_B, history_H, 2), torch.tensor([1 / 9, 25 / 36]))
    close(percentile_probability(batch_B, history_H, 1, "mid"), torch.tensor([2.5 / 6, 5.5 / 6]))


@pytest.mark.parametrize("beta", [1, 2, 3])
def test_coins_of_all_equal_losses_do_not_stop_for_ever(beta):
    losses_B = torch.tensor([0.7, 0.7, math.nan, 0.7])
    literal_B = percentile_probability(losses_B, losses_B, beta)
    assert literal_B.tolist() == [0, 0, 0, 0]
    share = 1 / (beta + 1)
    probability_B = never_all_zero(literal_B, losses_B, share)
    close(probability_B, torch.tensor([share, share, 0, share]))
    tossed = torch.stack([coins(probability_B, keyed(seed)) for seed in range(40)])
    assert bool(tossed[:, [0, 1, 3]].any())
    assert not bool(tossed[:, 2].any())


def test_never_all_zero_leaves_probabilities_alone_while_one_is_positive():
    probability_B = torch.tensor([0.0, 0.25, 0.0])
    assert torch.equal(never_all_zero(probability_B, torch.tensor([1.0, 2.0, 0.0]), 0.5), probability_B)
    dropped = never_all_zero(torch.tensor([0.0, math.nan]), torch.tensor([math.inf, 1.0]), 0.5)
    assert dropped.tolist() == [0, 0.5]


def test_the_history_ignores_what_is_not_finite():
    history_H = torch.tensor([math.nan, 0.1, math.inf, 0.2, -math.inf])
    close(percentile_probability(torch.tensor([0.2]), history_H, 1), torch.tensor([0.5]))
    assert percentile_probability(torch.tensor([0.2]), torch.full((3,), math.nan), 1).tolist() == [0]


@given(vectors(losses), st.sampled_from([0.01, 0.1, 1 / 3, 0.5, 1.0]))
@settings(deadline=None)
def test_rank_power_probability_matches_the_ranks(losses_B, keep):
    close(rank_power_probability(losses_B, keep), reference.rank_power_probability(losses_B, keep))


@given(vectors(losses), st.sampled_from([1.0, 2.0, 100.0, 1e8]))
@settings(deadline=None)
def test_exponential_rank_probability_matches_the_ranks(losses_N, pressure):
    expected = reference.exponential_rank_probability(losses_N, pressure)
    close(exponential_rank_probability(losses_N, pressure), expected)


def test_exponential_ranks_of_the_worked_example():
    probability_N = exponential_rank_probability(torch.tensor([1.0, 4.0, 3.0, 2.0]), 100)
    close(probability_N, torch.tensor([0.021841, 0.690679, 0.218412, 0.069068]), atol=5e-7, rtol=0)


def test_rank_power_by_hand():
    # ranks 0 1 2 give (1/6)^1, (3/6)^1, (5/6)^1 at keep = 1/2; their sum is 9/6
    close(rank_power_probability(torch.tensor([3.0, 1.0, 2.0]), 0.5), torch.tensor([5 / 9, 1 / 9, 3 / 9]))


@pytest.mark.parametrize(
    "probability",
    [
        lambda scores_B: rank_power_probability(scores_B, 0.5),
        lambda scores_B: exponential_rank_probability(scores_B, 100),
    ],
)
def test_of_tied_losses_the_earlier_is_the_more_likely_unless_all_tie(probability):
    first, second, low = probability(torch.tensor([2.0, 2.0, 1.0])).tolist()
    assert first > second > low
    assert probability(torch.tensor([2.0, math.nan, 2.0])).tolist() == [0.5, 0, 0.5]


@given(vectors(losses), st.sampled_from([0.0, 0.5, 1e4]))
@settings(deadline=None)
def test_proportional_probability_matches_exact_fractions(scores_B, smoothing):
    scores_B = torch.where(scores_B == -math.inf, math.nan, scores_B)
    expected = reference.proportional_probability(scores_B, smoothing)
    close(proportional_probability(scores_B, smoothing), expected)


@pytest.mark.parametrize("value", [5e-324, 1e-308, 0.0, 1.0, 1.7e308])
def test_proportions_survive_the_ends_of_double_precision(value):
    scores_B = torch.full((4,), value, dtype=torch.float64)
    assert proportional_probability(scores_B).tolist() == [0.25] * 4
    assert proportional_probability(torch.cat([scores_B, scores_B]), 1e308).tolist() == [0.125] * 8


@pytest.mark.parametrize(
    "probability",
    [
        lambda scores_B: rank_power_probability(scores_B, 0.3),
        lambda scores_B: exponential_rank_probability(scores_B, 100),
        proportional_probability,
    ],
)
def test_distributions_over_a_million_samples_sum_to_one(probability):
    losses_N = torch.rand(1_000_000, generator=keyed(0))
    assert float(probability(losses_N).double().sum()) == pytest.approx(1, abs=1e-6)


def test_pressure_decays_from_start_to_end_and_stays_there():
    assert pressure_at(0, 100, 1, 10) == 100
    assert pressure_at(5, 100, 1, 10) == pytest.approx(10)
    assert pressure_at(3, 100, 4, 7) == pytest.approx(100 * math.exp(math.log(4 / 100) / 7) ** 3)
    assert [pressure_at(epoch, 100, 1, 10) for epoch in (10, 11, 1000)] == [1, 1, 1]
    assert pressure_at(1e6, 1, 100, 10) == 100
    assert pressure_at(math.nextafter(10, 0), 1.147, 1, 10) == 1  # the formula rounds to less, which would be refused
    pressures = [pressure_at(epoch / 7, 100, 1, 10) for epoch in range(100)]
    assert pressures == sorted(pressures, reverse=True)
    assert min(pressures) >= 1


ONE_B = torch.ones(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: percentile_probability(ONE_B, torch.ones(2, 2), 1), r"history_H must be a vector, got shape \(2, 2\)"),
        (lambda: percentile_probability(torch.ones(1, 2), ONE_B, 1), r"losses_B must be a vector, got shape \(1, 2\)"),
        (lambda: percentile_probability(ONE_B, ONE_B, -1), "beta must be a finite number >= 0, got -1"),
        (lambda: percentile_probability(ONE_B, ONE_B, math.nan), "beta .* got nan"),
        (lambda: percentile_probability(ONE_B, ONE_B, 1, "weak"), "kind must be 'strict' or 'mid', got 'weak'"),
        (lambda: never_all_zero(ONE_B, torch.ones(3), 0.5), "probability_B and scores_B .* got 2 and 3"),
        (lambda: never_all_zero(-ONE_B, ONE_B, 0.5), "probability_B must be >= 0, got -1.0 at position 0"),
        (lambda: never_all_zero(ONE_B, ONE_B, 0), r"share must be in \(0, 1\], got 0"),
        (lambda: rank_power_probability(ONE_B, 0), r"keep must be in \(0, 1\], got 0"),
        (lambda: rank_power_probability(torch.tensor(1.0), 1), r"losses_B must be a vector, got shape \(\)"),
        (lambda: exponential_rank_probability(ONE_B, 0.5), "pressure must be a finite number >= 1, got 0.5"),
        (lambda: exponential_rank_probability(torch.ones(1, 1), 2), "losses_N must be a vector"),
        (lambda: pressure_at(0, math.inf, 1, 10), "start must be a finite number >= 1, got inf"),
        (lambda: pressure_at(0, 100, 0, 10), "end must be a finite number >= 1, got 0"),
        (lambda: pressure_at(-1, 100, 1, 10), "epoch must be >= 0, got -1"),
        (lambda: pressure_at(0, 100, 1, 0), "num_epochs must be > 0, got 0"),
        (lambda: proportional_probability(torch.tensor([1.0, -0.5])), "scores_B must be >= 0, got -0.5 at position 1"),
        (lambda: proportional_probability(ONE_B, -1), "smoothing must be a finite number >= 0, got -1"),
    ],
)
def test_wrong_arguments_are_refused_by_name_with_the_value_seen(call, message):
    with pytest.raises(ValueError, match=message):
        call()
