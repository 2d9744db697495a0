"""Methods that draw: how often each candidate comes, against the probability that they state.

Seeds are fixed. A share p over n independent draws may stray by √(30 p(1-p)/n) + 10/n, see `tolerance`.
"""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from common.selection.compose import Composed
from tests.common.selection.offers import ALWAYS, SWITCHED, Way, make, numbers, offer_of, tolerance
from tests.common.selection.strategies import keyed

NAN = float("nan")
SCORES_B = numbers(0.5, 3, NAN, 1, 0.25, 0, 1.25)
KNOWN_B = torch.nan_to_num(SCORES_B)


def shares(method, offer, num: int, num_rounds: int) -> Tensor:
    """How often each candidate is chosen, by round; repeats count as often as they occur."""
    counts_B = torch.zeros(len(offer))
    for seed in range(num_rounds):
        counts_B += torch.bincount(method.select(offer, num, keyed(seed)).indices, minlength=len(offer))
    return counts_B / num_rounds


def assert_shares(shares_B: Tensor, expected_B: Tensor, num_draws: int) -> None:
    assert bool(((shares_B - expected_B).abs() <= tolerance(expected_B, num_draws)).all()), (shares_B, expected_B)


def seen(way: Way, offer, **changes):
    method = way.make(len(offer), **changes)
    method.observe(offer)
    return method


def power(scores_B: Tensor, temperature: float) -> Tensor:
    """p ∝ s^(1/T) in plain Python."""
    masses = [score ** (1 / temperature) for score in scores_B.tolist()]
    return numbers(*[mass / sum(masses) for mass in masses])


WITH_REPLACEMENT = [
    (Way("gradient-norm", {"tau_threshold": ALWAYS}), power(KNOWN_B, 1.0)),
    (Way("gradient-norm", {"tau_threshold": ALWAYS, "temperature": 2.0}), power(KNOWN_B, 2.0)),
    (Way("gradient-norm", {"tau_threshold": ALWAYS, "temperature": 0.01}), numbers(0, 1, 0, 0, 0, 0, 0)),
    (Way("cdf-loss", state=SWITCHED), power(KNOWN_B, 1.0)),
    (Way("cdf-gradnorm", state=SWITCHED), power(KNOWN_B, 1.0)),
    (Way("biased-importance"), power(KNOWN_B, 1.0)),
    (Way("biased-importance", {"temperature": 0.5}), power(KNOWN_B, 0.5)),
]


@pytest.mark.parametrize(("way", "probability_B"), WITH_REPLACEMENT, ids=lambda value: str(value)[:40])
def test_draws_with_replacement_come_with_the_probability_that_they_state(way, probability_B):
    """Each round is b independent draws, so n = rounds · b."""
    num, num_rounds = 6, 400  # no more than are finite
    offer = offer_of(way, SCORES_B)
    method = seen(way, offer)
    assert_shares(shares(method, offer, num, num_rounds) / num, probability_B, num * num_rounds)
    selection = method.select(offer, num, keyed(1))
    torch.testing.assert_close(selection.probability, probability_B[selection.indices], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_importance_weights_make_the_mean_unbiased_for_the_candidates(temperature):
    """The variance of w·v over draws is Σ p (v/(B p))² - mean²; the mean of n draws may stray by 5.5·√(variance/n)."""
    num, num_rounds = 6, 500
    bounds_B, values_B = numbers(1, 3, NAN, 1, 0.5, 1.5, 2), numbers(1, 9, 100, 2, 0.5, 4, 8)
    way = Way("gradient-norm", {"tau_threshold": ALWAYS, "temperature": temperature})
    offer = offer_of(way, bounds_B)
    method = seen(way, offer)
    total = 0.0
    for seed in range(num_rounds):
        selection = method.select(offer, num, keyed(seed))
        total += float((selection.weights * values_B[selection.indices]).mean())
    p, v = power(torch.nan_to_num(bounds_B), temperature)[offer.available], values_B[offer.available]
    deviation = ((p * (v / (6 * p)) ** 2).sum() - v.mean() ** 2).sqrt() / (num * num_rounds) ** 0.5
    assert abs(total / num_rounds - v.mean()) <= 5.5 * deviation
    assert 5.5 * deviation < 0.5 < abs((p * v).sum() - v.mean())  # unweighted draws would show


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_biased_importance_with_power_1_is_unbiased_too(temperature):
    """At k = 1 the factor Σ_sel(w s)/Σ_sel(w^k s) is 1, and w = 1/(B p) of the p that is drawn with."""
    offer = offer_of(Way("biased-importance"), SCORES_B)
    selection = make("biased-importance", bias_power=1.0, temperature=temperature).select(offer, 6, keyed(3))
    torch.testing.assert_close(selection.weights, 1 / (6 * selection.probability), atol=1e-4, rtol=1e-4)


def inclusion(probability_B: Tensor, num: int) -> Tensor:
    """Of successive draws without replacement: the sum over all ordered outcomes that hold each candidate."""
    p = probability_B.tolist()
    included = [0.0] * len(p)
    for outcome in permutations([i for i, mass in enumerate(p) if mass > 0], num):
        chance, left = 1.0, sum(p)
        for i in outcome:
            chance, left = chance * p[i] / left, left - p[i]
        for i in outcome:
            included[i] += chance
    return numbers(*included)


@pytest.mark.parametrize("name", ["mms", "loss", "entropy", "rho-loss"])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_a_temperature_draws_without_replacement_by_the_standardised_hardness(name, temperature):
    """n = rounds: within one, draws depend on each other."""
    num, num_rounds = 2, 1500
    finite = SCORES_B[SCORES_B.isfinite()].double()
    hardness = (finite - finite.mean()) / finite.std(correction=0) * (-1 if name == "mms" else 1)
    probability_B = torch.zeros(len(SCORES_B))
    probability_B[SCORES_B.isfinite()] = torch.exp(hardness / temperature).float()
    probability_B /= probability_B.sum()
    way = Way(name, {"temperature": temperature})
    offer = offer_of(way, SCORES_B)
    method = seen(way, offer)
    assert_shares(shares(method, offer, num, num_rounds), inclusion(probability_B, num), num_rounds)
    selection = method.select(offer, num, keyed(0))
    torch.testing.assert_close(selection.probability, probability_B[selection.indices])


@pytest.mark.parametrize("name", ["mms", "loss"])
def test_a_low_temperature_takes_the_hardest_however_small_their_probabilities(name):
    scores_B = torch.rand(50, generator=keyed(2))
    offer = offer_of(Way(name), scores_B)
    expected = make(name).select(offer, 20, keyed(0)).indices.tolist()
    for temperature in (1e-9, 1e-200):
        assert make(name, temperature=temperature).select(offer, 20, keyed(0)).indices.tolist() == expected


def test_ranks_are_drawn_without_replacement_with_exponential_probability():
    num, num_rounds = 2, 1500
    masses = numbers(4, 1, 3, 2).neg().mul(torch.log(torch.tensor(100.0)) / 4).exp()  # ranks of the losses below
    offer = offer_of(Way("rank"), numbers(0, 9, 1, 5))
    counts_N = torch.zeros(4)
    for seed in range(num_rounds):
        counts_N[make("rank", num_samples=4).select(offer, num, keyed(seed)).indices] += 1
    assert_shares(counts_N / num_rounds, inclusion(masses / masses.sum(), num), num_rounds)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_coins_fall_with_the_power_of_the_percentile(beta):
    """n = rounds: one coin of each candidate in each."""
    way, num_rounds = Way("selective-backprop", {"beta": beta}), 1500
    offer = offer_of(way, SCORES_B)
    below_B = numbers(2, 5, 0, 3, 1, 0, 4) / 6
    method = seen(way, offer)
    assert_shares(shares(method, offer, 1, num_rounds), below_B**beta, num_rounds)
    selection = method.select(offer, 1, keyed(0))
    torch.testing.assert_close(selection.probability, (below_B**beta)[selection.indices])


def test_a_uniform_fraction_is_a_second_coin_of_a_stream():
    """p + (1 - p)·f, and never a dropped candidate."""
    way, num_rounds = Way("selective-backprop"), 1500
    offer = offer_of(way, SCORES_B)
    coin_B = numbers(2, 5, 0, 3, 1, 0, 4) / 6
    expected_B = torch.where(SCORES_B.isfinite(), coin_B + (1 - coin_B) * 0.3, 0.0)
    method = Composed(seen(way, offer), "stream", uniform_fraction=0.3)
    assert_shares(shares(method, offer, 1, num_rounds), expected_B, num_rounds)
    for seed in range(20):
        selection = method.select(offer, 1, keyed(seed))
        stated = selection.probability.tolist()
        own = coin_B[selection.indices].tolist()
        assert all(p in (pytest.approx(mine), pytest.approx(0.3)) for p, mine in zip(stated, own, strict=True))


def test_a_uniform_share_of_all_samples_takes_each_equally_often():
    """And none that the ranks then take: they prefer the last of these by 10^30."""
    offer = offer_of(Way("rank"), torch.arange(16.0))
    inner = make("rank", num_samples=16, pressure_start=1e30, pressure_end=1e30)
    method = Composed(inner, "planned", uniform_fraction=0.5)
    counts_N = torch.zeros(16)
    for seed in range(600):
        selection = method.select(offer, 8, keyed(seed))
        assert len(selection.indices.unique()) == 8
        counts_N[selection.indices[:4]] += 1
    assert_shares(counts_N / 600, torch.full((16,), 4 / 16), 600)


def test_a_uniform_share_keeps_importance_weights_unbiased():
    """Over random orders of the candidates, as they come, the weighted mean is that of all of them.

    Its variance is estimated from the rounds, which are independent: 5.5·√(variance/n).
    """
    way, num, num_rounds = Way("gradient-norm", {"tau_threshold": ALWAYS}), 6, 1500
    bounds_B, values_B = torch.arange(1.0, 13), torch.arange(12.0) ** 2
    method = Composed(seen(way, offer_of(way, bounds_B)), uniform_fraction=0.5)
    means = []
    for seed in range(num_rounds):
        order_B = torch.randperm(12, generator=keyed(seed))
        selection = method.select(offer_of(way, bounds_B[order_B]), num, keyed(seed + 10**6))
        means.append((selection.weights * values_B[order_B][selection.indices]).mean())
    means = torch.stack(means)
    assert abs(means.mean() - values_B.mean()) <= 5.5 * means.std() / num_rounds**0.5
    assert 5.5 * means.std() / num_rounds**0.5 < 0.15 * values_B.mean()
