import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.selection.select import diverse, diverse_factored
from tests import reference_select as reference
from tests.common.selection.strategies import keyed, not_finite

whole = st.integers(-2, 2).map(float)


def matrices(elements: st.SearchStrategy[float], num_rows: int, num_columns: int) -> st.SearchStrategy[Tensor]:
    row = st.lists(elements, min_size=num_columns, max_size=num_columns)
    rows = st.lists(row, min_size=num_rows, max_size=num_rows)
    return rows.map(lambda values: torch.tensor(values, dtype=torch.float32).reshape(num_rows, num_columns))


def outer(errors_BC: Tensor, features_BH: Tensor) -> Tensor:
    return (errors_BC.double()[:, :, None] * features_BH.double()[:, None, :]).flatten(1)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_diverse_matches_exact_gram_schmidt(data):
    num_rows, num_columns = data.draw(st.integers(0, 7)), data.draw(st.integers(1, 4))
    often_whole = st.one_of(*[whole] * 12, not_finite)
    gradients_BD = data.draw(matrices(often_whole, num_rows, num_columns))
    num = data.draw(st.integers(0, 9))
    assert torch.equal(diverse(gradients_BD, num), reference.diverse(gradients_BD, num))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_factors_choose_as_their_outer_products_do(data):
    num_rows = data.draw(st.integers(0, 6))
    often_whole = st.one_of(*[whole] * 12, not_finite)
    errors_BC = data.draw(matrices(often_whole, num_rows, 2))
    features_BH = data.draw(matrices(whole, num_rows, 2))
    num = data.draw(st.integers(0, 8))
    expected_b = reference.diverse(outer(errors_BC, features_BH), num)
    assert torch.equal(diverse_factored(errors_BC, features_BH, num), expected_b)
    assert torch.equal(diverse(outer(errors_BC, features_BH), num), expected_b)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_both_forms_agree_on_the_gradients_of_a_real_layer(seed, dtype):
    generator = keyed(seed)
    logits_BC = 3 * torch.randn(96, 10, generator=generator)
    targets_B = torch.randint(10, (96,), generator=generator)
    features_BH = torch.randn(96, 32, generator=generator).relu().to(dtype)
    errors_BC = (logits_BC.softmax(dim=1) - torch.eye(10)[targets_B]).to(dtype)
    features_BH[50:60], errors_BC[50:60] = features_BH[:10].clone(), errors_BC[:10].clone()  # exact duplicates
    expected_b = diverse(outer(errors_BC, features_BH), 48)
    assert torch.equal(diverse_factored(errors_BC, features_BH, 48), expected_b)
    assert len(set(expected_b.tolist())) == 48
    first_of = {i: i - 50 if 50 <= i < 60 else i for i in range(96)}
    assert [first_of[i] for i in expected_b.tolist()] == expected_b.tolist()  # a duplicate adds nothing


def test_the_first_choice_is_the_closest_to_the_mean_and_the_next_adds_what_it_lacks():
    # mean (8, 3)/5; <g, mean>·5 = 24 16 16 9 9, and what is left of the mean after (3, 0) is (0, 3)/5
    gradients_BD = torch.tensor([[3.0, 0], [2, 0], [2, 0], [0, 3], [1, 0]])
    assert diverse(gradients_BD, 2).tolist() == [0, 3]
    assert diverse(gradients_BD, 5).tolist() == [0, 3, 1, 2, 4]


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 3e38])
def test_constant_gradients_give_the_earliest_candidates(value):
    assert diverse(torch.full((50, 3), value), 20).tolist() == list(range(20))
    assert diverse_factored(torch.full((50, 3), value), torch.full((50, 2), value), 20).tolist() == list(range(20))


@pytest.mark.parametrize("seed", range(10))
def test_more_than_the_rank_can_be_asked_for_and_the_earlier_ones_follow(seed):
    gradients_BD = torch.randn(40, 3, generator=keyed(seed))
    gradients_BD[0] = 0
    chosen = diverse(gradients_BD, 40).tolist()
    assert sorted(chosen) == list(range(40))
    assert chosen[3:] == sorted(chosen[3:])
    assert diverse_factored(gradients_BD, torch.ones(40, 1), 40).tolist() == chosen


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_unit_of_the_gradients_does_not_matter(scale):
    gradients_BD = torch.randn(20, 5, generator=keyed(0)).double()
    chosen = diverse(gradients_BD, 5).tolist()
    assert diverse(gradients_BD * scale, 5).tolist() == chosen
    assert diverse_factored(gradients_BD * scale, torch.full((20, 1), scale, dtype=torch.float64), 5).tolist() == chosen


def test_a_row_that_is_not_finite_is_no_part_of_the_mean():
    gradients_BD = torch.tensor([[1.0, 0.0], [math.nan, -9.0], [0.0, 2.0], [math.inf, 0.0]])
    assert diverse(gradients_BD, 4).tolist() == [2, 0]
    ones_B1 = torch.ones(4, 1)
    assert diverse_factored(gradients_BD, ones_B1, 4).tolist() == [2, 0]
    assert diverse_factored(ones_B1, gradients_BD, 4).tolist() == [2, 0]
    assert diverse(torch.full((2, 2), math.nan), 2).tolist() == []


def test_the_factored_form_takes_a_batch_whose_outer_products_would_fill_memory():
    generator = keyed(0)
    errors_BC, features_BH = torch.randn(4000, 300, generator=generator), torch.randn(4000, 800, generator=generator)
    chosen_b = diverse_factored(errors_BC, features_BH, 8)  # in float64 the outer products take 7.7 GB
    assert len(set(chosen_b.tolist())) == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diverse(torch.ones(3), 1), r"gradients_BD must be a matrix, got shape \(3,\)"),
        (lambda: diverse(torch.ones(3, 2), -1), "num must be >= 0, got -1"),
        (lambda: diverse_factored(torch.ones(3), torch.ones(3, 1), 1), r"errors_BC must be a matrix, got shape \(3,\)"),
        (lambda: diverse_factored(torch.ones(3, 1), torch.ones(3), 1), "features_BH must be a matrix"),
        (lambda: diverse_factored(torch.ones(3, 1), torch.ones(4, 1), 1), "must have B rows, got 3 and 4"),
        (lambda: diverse_factored(torch.ones(3, 1), torch.ones(3, 1), -1), "num must be >= 0, got -1"),
    ],
)
def test_wrong_arguments_are_refused_by_name_with_the_value_seen(call, message):
    with pytest.raises(ValueError, match=message):
        call()
