import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.selection.select import soft_prune
from tests import reference_select as reference
from tests.common.selection.strategies import five_sigma, keyed, losses, uniforms, vectors


@given(vectors(losses), st.sampled_from([0.1, 0.5, 0.75, 1.0]), st.integers(0, 99))
@settings(deadline=None)
def test_soft_prune_matches_one_coin_for_each_sample_below_the_mean(losses_N, keep_ratio, seed):
    known_n = losses_N[losses_N.isfinite()].tolist()
    mean = sum(map(Fraction, known_n)) / max(len(known_n), 1)
    # A loss so near the mean of all that the mean's rounding decides is on either side.
    assume(all(loss == mean or abs(loss - mean) > 1e-9 * mean for loss in map(Fraction, known_n)))
    indices_k, weights_k = soft_prune(losses_N, keep_ratio, keyed(seed))
    expected_k, expected_weights_k = reference.soft_prune(losses_N, keep_ratio, uniforms(len(losses_N), seed))
    assert torch.equal(indices_k, expected_k)
    torch.testing.assert_close(weights_k, expected_weights_k)


def test_samples_at_or_above_the_mean_or_of_unknown_loss_are_kept_with_weight_one():
    losses_N = torch.tensor([1.0, 2.0, 3.0, math.nan, math.inf, 2.0])  # mean of the known: 2
    for seed in range(20):
        indices_k, weights_k = soft_prune(losses_N, 0.25, keyed(seed))
        kept = dict(zip(indices_k.tolist(), weights_k.tolist(), strict=True))
        assert kept.pop(0, 4.0) == 4.0
        assert kept == dict.fromkeys([1, 2, 3, 4, 5], 1.0)


def test_the_weights_of_the_kept_add_up_to_the_whole_data_set_in_the_mean():
    num_below, num_above, keep_ratio = 9000, 1000, 0.3
    losses_N = torch.cat([torch.zeros(num_below), torch.ones(num_above)])
    indices_k, weights_k = soft_prune(losses_N, keep_ratio, keyed(1))
    share = (len(indices_k) - num_above) / num_below
    assert share == pytest.approx(keep_ratio, abs=five_sigma(keep_ratio, num_below))
    tolerance = five_sigma(keep_ratio, num_below) * num_below / keep_ratio
    assert float(weights_k.double().sum()) == pytest.approx(num_below + num_above, abs=tolerance)
    assert indices_k.tolist() == sorted(indices_k.tolist())


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, 1e-300, math.nan])
@pytest.mark.parametrize("num", [1, 3, 7, 1000])
def test_constant_losses_prune_nothing_whatever_the_mean_rounds_to(value, num):
    indices_k, weights_k = soft_prune(torch.full((num,), value, dtype=torch.float64), 0.5, keyed(0))
    assert indices_k.tolist() == list(range(num))
    assert torch.equal(weights_k, torch.ones(num))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: soft_prune(torch.ones(2, 2), 0.5, keyed(0)), r"last_losses_N must be a vector, got shape \(2, 2\)"),
        (lambda: soft_prune(torch.ones(2), 0, keyed(0)), r"keep_ratio must be in \(0, 1\], got 0"),
        (lambda: soft_prune(torch.ones(2), 1.5, keyed(0)), r"keep_ratio must be in \(0, 1\], got 1.5"),
        (lambda: soft_prune(torch.ones(2), 0.5, None), "generator must be a torch.Generator .* got None"),
    ],
)
def test_wrong_arguments_are_refused_by_name_with_the_value_seen(call, message):
    with pytest.raises(ValueError, match=message):
        call()
