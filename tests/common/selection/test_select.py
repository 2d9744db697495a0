import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.selection.scores import minimal_margin_score
from common.selection.select import highest, lowest
from tests import reference

numbers = st.one_of(
    st.integers(-2, 2).map(float), st.floats(width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])
)
score_vectors = st.lists(numbers, max_size=12).map(lambda values: torch.tensor(values, dtype=torch.float32))


@given(score_vectors, st.integers(0, 14))
@settings(deadline=None)
def test_lowest_matches_repeated_search_for_the_smallest(scores_B, num):
    assert torch.equal(lowest(scores_B, num), reference.lowest(scores_B, num))


@given(score_vectors, st.integers(0, 14))
@settings(deadline=None)
def test_highest_matches_repeated_search_for_the_largest(scores_B, num):
    assert torch.equal(highest(scores_B, num), reference.highest(scores_B, num))


def test_the_lowest_margins_of_the_worked_example_differ_from_the_lowest_logit_gaps():
    weight_CD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    features_BD = torch.tensor([[2.0, 1.0], [3.0, -1.0], [-0.75, -0.375], [0.2, 0.1], [-2.0, 1.0], [0.0, 0.0]])
    logits_BC = features_BD @ weight_CD.T
    top_B2 = logits_BC.topk(2, dim=1).values
    assert lowest(minimal_margin_score(logits_BC, weight_CD), 4).tolist() == [4, 5, 3, 2]
    assert lowest(top_B2[:, 0] - top_B2[:, 1], 4).tolist() == [4, 5, 3, 0]


@pytest.mark.parametrize("choose", [lowest, highest])
@pytest.mark.parametrize("value", [0.0, -0.0, 3.5, torch.finfo(torch.float32).max])
def test_constant_scores_give_the_earliest_candidates(choose, value):
    assert choose(torch.full((1000,), value), 100).tolist() == list(range(100))


@pytest.mark.parametrize("choose", [lowest, highest])
def test_what_is_not_finite_is_never_chosen_even_if_nothing_else_is_left(choose):
    scores_B = torch.tensor([math.nan, 1.0, math.inf, 1.0, -math.inf])
    assert choose(scores_B, 4).tolist() == [1, 3]
    assert choose(torch.full((3,), math.nan), 2).tolist() == []


@pytest.mark.parametrize("choose", [lowest, highest])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_indices_are_int64_for_scores_of_any_real_dtype(choose, dtype):
    indices_b = choose(torch.tensor([2, 1, 3], dtype=dtype), 1)
    assert indices_b.dtype == torch.int64
    assert indices_b.tolist() == [1 if choose is lowest else 2]


@pytest.mark.parametrize("choose", [lowest, highest])
def test_an_empty_batch_gives_an_empty_selection(choose):
    assert choose(torch.empty(0), 3).tolist() == []
    assert choose(torch.ones(3), 0).tolist() == []


@pytest.mark.parametrize("choose", [lowest, highest])
def test_wrong_arguments_are_refused_with_the_value_seen(choose):
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        choose(torch.zeros(2, 2), 1)
    with pytest.raises(ValueError, match="num must be >= 0, got -1"):
        choose(torch.zeros(2), -1)
