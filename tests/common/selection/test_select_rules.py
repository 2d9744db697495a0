"""The rules at the top of `select`, for every function they apply to."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.selection import select
from tests.common.selection.strategies import keyed, losses, vectors


def targets(scores_B: Tensor) -> Tensor:
    return torch.arange(len(scores_B), device=scores_B.device) % 3


INDICES = {
    "lowest": lambda s, num, g: select.lowest(s, num),
    "highest": lambda s, num, g: select.highest(s, num),
    "sample_without_replacement": select.sample_without_replacement,
    "sample_with_replacement": select.sample_with_replacement,
    "inverse_cdf": lambda s, num, g: select.inverse_cdf(s, torch.rand(num, generator=g)),
    "class_balanced_hardest": lambda s, num, g: select.class_balanced_hardest(
        s, targets(s), num, 0.5, torch.tensor([2, 0, 1]), g
    ),
    "diverse": lambda s, num, g: select.diverse(s[:, None], num),
    "diverse_factored": lambda s, num, g: select.diverse_factored(s[:, None], torch.ones(len(s), 2), num),
}
WITH_REPEATS = {"sample_with_replacement", "inverse_cdf"}
PROBABILITIES = {
    "percentile_probability": lambda s, g: select.percentile_probability(s, s, 1.0),
    "percentile_probability-mid": lambda s, g: select.percentile_probability(s, s, 1.0, "mid"),
    "never_all_zero": lambda s, g: select.never_all_zero(torch.zeros_like(s), s, 0.5),
    "rank_power_probability": lambda s, g: select.rank_power_probability(s, 0.5),
    "exponential_rank_probability": lambda s, g: select.exponential_rank_probability(s, 100),
    "proportional_probability": lambda s, g: select.proportional_probability(s),
}
OTHERS = {"biased_weights", "coins", "collapse_duplicates", "importance_weights", "pressure_at", "soft_prune"}
OTHERS |= {"variance_reduction_tau"}


def test_the_module_offers_every_function_and_this_file_knows_them_all():
    named = {name.partition("-")[0] for name in (*INDICES, *PROBABILITIES, *OTHERS)}
    assert set(select.__all__) == named
    assert all(getattr(select, name).__doc__ for name in select.__all__)


@pytest.mark.parametrize("name", INDICES)
@given(scores_B=vectors(losses), num=st.integers(0, 12))
@settings(deadline=None, max_examples=40)
def test_indices_name_finite_candidates_and_a_short_selection_is_as_long_as_it_can_be(name, scores_B, num):
    indices_b = INDICES[name](scores_B, num, keyed(0))
    num_finite = int(scores_B.isfinite().sum())
    assert indices_b.dtype == torch.int64
    assert bool(scores_B[indices_b].isfinite().all())
    if name in WITH_REPEATS:
        assert len(indices_b) == (num if num_finite else 0)
    else:
        assert len(indices_b) == len(set(indices_b.tolist())) == min(num, num_finite)


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_scores_choose_without_replacement(name, value):
    indices_b = INDICES[name](torch.full((30,), value), 20, keyed(0))
    assert len(set(indices_b.tolist())) == 20


@pytest.mark.parametrize("name", PROBABILITIES)
@given(scores_B=vectors(losses))
@settings(deadline=None, max_examples=40)
def test_probabilities_are_float32_in_range_and_zero_for_what_is_not_finite(name, scores_B):
    probability_B = PROBABILITIES[name](scores_B, keyed(0))
    assert probability_B.dtype == torch.float32
    assert probability_B.shape == scores_B.shape
    assert bool(((probability_B >= 0) & (probability_B <= 1)).all())
    assert not bool(probability_B[~scores_B.isfinite()].any())


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_scores_have_equal_probabilities(name, value):
    probability_B = PROBABILITIES[name](torch.tensor([value, math.nan, value, value]), keyed(0))
    assert len(set(probability_B[[0, 2, 3]].tolist())) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("name", [*INDICES, *PROBABILITIES])
def test_scores_of_any_real_dtype_are_taken(name, dtype):
    scores_B = torch.tensor([1, 3, 2], dtype=dtype)
    call = INDICES[name] if name in INDICES else lambda s, num, g: PROBABILITIES[name](s, g)
    assert torch.equal(call(scores_B, 3, keyed(0)), call(scores_B.float(), 3, keyed(0)))


def test_no_function_touches_its_arguments_or_the_global_generator():
    scores_B, before = torch.tensor([1.0, math.nan, 2.0, 0.0]), torch.get_rng_state()
    copy_B = scores_B.clone()
    for choose in INDICES.values():
        choose(scores_B, 3, keyed(0))
    for probability in PROBABILITIES.values():
        select.coins(probability(scores_B, keyed(0)), keyed(0))
    select.soft_prune(scores_B, 0.5, keyed(0))
    select.biased_weights(scores_B, torch.tensor([0, 2]), 0.5)
    select.variance_reduction_tau(scores_B)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(scores_B.nan_to_num(-1), copy_B.nan_to_num(-1))


def test_one_seed_draws_the_same_twice_and_another_does_not():
    scores_B = torch.arange(1.0, 101)
    for name in ("sample_without_replacement", "sample_with_replacement", "class_balanced_hardest"):
        first, again, other = (INDICES[name](scores_B, 50, keyed(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_empty_input_gives_empty_output_of_the_right_dtype():
    empty, none = torch.empty(0), torch.empty(0, dtype=torch.int64)
    for choose in INDICES.values():
        for num in (0, 3):
            assert torch.equal(choose(empty, num, keyed(0)), none)
    for probability in PROBABILITIES.values():
        assert torch.equal(probability(empty, keyed(0)), empty)
    assert torch.equal(select.coins(empty, keyed(0)), torch.empty(0, dtype=torch.bool))
    assert torch.equal(select.importance_weights(empty, 0), empty)
    assert torch.equal(select.biased_weights(empty, none, 1), empty)
    for pair in (select.soft_prune(empty, 0.5, keyed(0)), select.collapse_duplicates(none, empty)):
        assert torch.equal(pair[0], none)
        assert torch.equal(pair[1], empty)
