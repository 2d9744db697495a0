"""Scores against slow code in the papers' notation. B = batch, C = classes, D = features of the last layer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.selection.scores import cross_entropy_score, entropy_score, gradient_norm_bound, minimal_margin_score
from tests import reference

LARGEST = torch.finfo(torch.float32).max

# The worked example: six samples, three classes, two features, no bias.
WEIGHT_CD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
FEATURES_BD = torch.tensor([[2.0, 1.0], [3.0, -1.0], [-0.75, -0.375], [0.2, 0.1], [-2.0, 1.0], [0.0, 0.0]])
TARGETS_B = torch.tensor([0, 1, 2, 1, 2, 0])
LOGITS_BC = FEATURES_BD @ WEIGHT_CD.T

whole = st.integers(-2, 2).map(float)  # ties, equal rows and zero rows
ordinary = st.floats(-40, 40, width=32).map(lambda x: x if abs(x) > 1e-3 else 0.0)
special = st.sampled_from([math.nan, math.inf, -math.inf])


@st.composite
def heads(draw: st.DrawFn, logits: st.SearchStrategy[float], least_classes: int = 1) -> tuple[Tensor, ...]:
    """logits_BC, weight_CD, bias_C, targets_B of any small size."""
    num, classes, features = draw(st.integers(0, 5)), draw(st.integers(least_classes, 5)), draw(st.integers(1, 3))

    def matrix(rows: int, columns: int, values: st.SearchStrategy[float]) -> Tensor:
        flat = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
        return torch.tensor(flat, dtype=torch.float32).reshape(rows, columns)

    numbers = draw(st.sampled_from([whole, ordinary]))
    bias_C = matrix(1, classes, numbers)[0]
    targets_B = torch.tensor([draw(st.integers(0, classes - 1)) for _ in range(num)], dtype=torch.int64)
    return matrix(num, classes, logits), matrix(classes, features, numbers), bias_C, targets_B


finite_heads = heads(st.one_of(whole, ordinary))
any_heads = heads(st.one_of(whole, ordinary, special))
any_softmax_heads = heads(st.one_of(whole, ordinary, special), least_classes=2)


def assert_scores(scores_B: Tensor, expected_B: Tensor, atol: float = 1e-6) -> None:
    """Equal where finite, and finite at the same places: which non-finite value is left open."""
    assert scores_B.dtype == torch.float32
    assert scores_B.shape == expected_B.shape
    finite_B = expected_B.isfinite()
    assert torch.equal(scores_B.isfinite(), finite_B)
    torch.testing.assert_close(scores_B[finite_B], expected_B[finite_B], rtol=1e-5, atol=atol)


def test_minimal_margin_score_gives_the_numbers_of_the_worked_example():
    expected = torch.tensor([0.707107, 2.828427, 0.670820, 0.070711, 0.0, 0.0])
    torch.testing.assert_close(minimal_margin_score(LOGITS_BC, WEIGHT_CD), expected, rtol=0, atol=1e-6)


def test_cross_entropy_score_gives_the_numbers_of_the_worked_example():
    expected = torch.tensor([0.318175, 4.024745, 0.319533, 1.020828, 0.717736, 1.098612])
    torch.testing.assert_close(cross_entropy_score(LOGITS_BC, TARGETS_B), expected, rtol=0, atol=1e-6)


@given(any_heads, st.booleans(), st.booleans())
@settings(deadline=None)
def test_minimal_margin_score_matches_paper_notation(head, bias_in_norm, nearest):
    logits_BC, weight_CD, bias_C, _ = head
    options = {"bias_in_norm": bias_in_norm, "nearest": nearest}
    scores_B = minimal_margin_score(logits_BC, weight_CD, bias_C, **options)
    assert_scores(scores_B, reference.minimal_margin_score(logits_BC, weight_CD, bias_C, **options))
    assert not bool((scores_B < 0).any())


@given(any_softmax_heads)
@settings(deadline=None)
def test_cross_entropy_score_matches_paper_notation(head):
    logits_BC, _, _, targets_B = head
    assert_scores(cross_entropy_score(logits_BC, targets_B), reference.cross_entropy_score(logits_BC, targets_B), 1e-5)


@given(any_softmax_heads)
@settings(deadline=None)
def test_entropy_score_matches_paper_notation_and_survives_masked_classes(head):
    logits_BC = head[0]
    assert_scores(entropy_score(logits_BC), reference.entropy_score(logits_BC))


@given(any_softmax_heads)
@settings(deadline=None)
def test_gradient_norm_bound_matches_paper_notation_and_its_range(head):
    logits_BC, _, _, targets_B = head
    scores_B = gradient_norm_bound(logits_BC, targets_B)
    assert_scores(scores_B, reference.gradient_norm_bound(logits_BC, targets_B))
    assert bool(((scores_B[scores_B.isfinite()] >= 0) & (scores_B[scores_B.isfinite()] <= 2**0.5)).all())


@given(finite_heads)
@settings(deadline=None)
def test_finite_logits_give_finite_scores(head):
    logits_BC, weight_CD, bias_C, targets_B = head
    assert bool(minimal_margin_score(logits_BC, weight_CD, bias_C, nearest=True).isfinite().all())
    assert bool(minimal_margin_score(logits_BC, weight_CD, bias_C).isfinite().all())
    if logits_BC.shape[1] > 1:
        assert bool(cross_entropy_score(logits_BC, targets_B).isfinite().all())
        assert bool(entropy_score(logits_BC).isfinite().all())


def test_gradient_norm_bound_equals_autograd_on_the_last_layer():
    torch.manual_seed(0)
    head, features_BD = torch.nn.Linear(7, 5), torch.randn(6, 7)
    targets_B = torch.tensor([0, 1, 2, 3, 4, 0])
    bounds_B = gradient_norm_bound(head(features_BD), targets_B)
    for i in range(6):
        head.zero_grad()
        torch.nn.functional.cross_entropy(head(features_BD[i : i + 1]), targets_B[i : i + 1]).backward()
        torch.testing.assert_close(head.bias.grad.norm(), bounds_B[i])
        torch.testing.assert_close(head.weight.grad.norm(), bounds_B[i] * features_BD[i].norm())


def test_gradient_norm_bound_tells_confident_samples_apart():
    logits_BC = torch.tensor([[20.0, 0.0], [22.0, 0.0]])
    scores_B = gradient_norm_bound(logits_BC, torch.tensor([0, 0]))
    torch.testing.assert_close(scores_B, torch.tensor([math.sqrt(2) * math.exp(-20), math.sqrt(2) * math.exp(-22)]))


def test_the_margin_is_the_distance_that_features_move_to_reach_the_boundary():
    torch.manual_seed(0)
    weight_CD, bias_C, features_BD = torch.randn(4, 3), torch.randn(4), torch.randn(8, 3)
    logits_BC = features_BD @ weight_CD.T + bias_C
    scores_B = minimal_margin_score(logits_BC, weight_CD, bias_C)
    top_B2 = logits_BC.topk(2, dim=1).indices
    normals_BD = weight_CD[top_B2[:, 0]] - weight_CD[top_B2[:, 1]]
    moved_BD = features_BD - scores_B[:, None] * normals_BD / normals_BD.norm(dim=1, keepdim=True)
    moved_B2 = (moved_BD @ weight_CD.T + bias_C).gather(1, top_B2)
    torch.testing.assert_close(moved_B2[:, 0], moved_B2[:, 1], atol=1e-5, rtol=0)


def test_the_bias_enters_the_norm_only_when_asked():
    logits_BC, weight_CD, bias_C = torch.tensor([[5.0, 0.0]]), torch.tensor([[3.0], [0.0]]), torch.tensor([4.0, 0.0])
    assert minimal_margin_score(logits_BC, weight_CD, bias_C).item() == pytest.approx(5 / 3)
    assert minimal_margin_score(logits_BC, weight_CD, bias_C, bias_in_norm=True).item() == 1.0
    assert minimal_margin_score(logits_BC, weight_CD, bias_in_norm=True).item() == pytest.approx(5 / 3)


def test_nearest_finds_a_boundary_that_the_second_logit_misses():
    logits_BC, weight_CD = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0], [0.0], [11.0]])
    assert minimal_margin_score(logits_BC, weight_CD).item() == 1.0
    assert minimal_margin_score(logits_BC, weight_CD, nearest=True).item() == pytest.approx(0.2)


def test_of_equal_second_logits_the_earlier_class_counts():
    logits_BC = torch.tensor([[2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 2.0, 1.0]])
    weight_CD = torch.tensor([[0.0], [2.0], [4.0], [8.0]])
    torch.testing.assert_close(minimal_margin_score(logits_BC, weight_CD), torch.tensor([0.5, 0.25]))


@pytest.mark.parametrize("nearest", [False, True])
def test_equal_rows_of_the_head_give_the_largest_float_unless_the_logits_tie(nearest):
    logits_BC, weight_CD = torch.tensor([[2.0, 1.0], [2.0, 2.0]]), torch.ones(2, 3)
    assert minimal_margin_score(logits_BC, weight_CD, nearest=nearest).tolist() == [LARGEST, 0.0]


def test_a_single_logit_gives_the_distance_to_zero():
    logits_BC, weight_CD = torch.tensor([[-10.0], [5.0], [0.0]]), torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(minimal_margin_score(logits_BC, weight_CD), torch.tensor([2.0, 1.0, 0.0]))


def test_a_head_that_is_not_finite_never_makes_a_sample_look_hard():
    logits_BC, weight_CD = torch.tensor([[2.0, 1.0]]), torch.tensor([[math.inf], [0.0]])
    assert not minimal_margin_score(logits_BC, weight_CD).isfinite().any()
    assert not minimal_margin_score(logits_BC, weight_CD, nearest=True).isfinite().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_are_computed_in_float32_whatever_arrives(dtype):
    logits_BC, weight_CD = LOGITS_BC.to(dtype), WEIGHT_CD.to(dtype)
    assert torch.equal(minimal_margin_score(logits_BC, weight_CD), minimal_margin_score(logits_BC.float(), WEIGHT_CD))
    assert torch.equal(entropy_score(logits_BC), entropy_score(logits_BC.float()))
    assert torch.equal(
        cross_entropy_score(logits_BC, TARGETS_B.int()), cross_entropy_score(logits_BC.float(), TARGETS_B)
    )


def test_scores_leave_their_arguments_alone():
    logits_BC, weight_CD = LOGITS_BC.clone(), WEIGHT_CD.clone()
    minimal_margin_score(logits_BC, weight_CD, nearest=True)
    gradient_norm_bound(logits_BC, TARGETS_B)
    entropy_score(logits_BC)
    assert torch.equal(logits_BC, LOGITS_BC)
    assert torch.equal(weight_CD, WEIGHT_CD)


def test_wrong_shapes_are_refused_with_the_shape_seen():
    with pytest.raises(ValueError, match=r"weight_CD must be \(3, D\).*got \(4, 2\)"):
        minimal_margin_score(LOGITS_BC, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"bias_C must be \(3,\).*got \(2,\)"):
        minimal_margin_score(LOGITS_BC, WEIGHT_CD, torch.zeros(2))
    with pytest.raises(ValueError, match=r"C >= 1, got \(6, 0\)"):
        minimal_margin_score(torch.zeros(6, 0), torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"logits_BC must be \(B, C\).*got \(3,\)"):
        entropy_score(torch.zeros(3))
    with pytest.raises(ValueError, match=r"targets_B must be \(6,\) integer class indices, got \(5,\)"):
        cross_entropy_score(LOGITS_BC, TARGETS_B[:5])
    with pytest.raises(ValueError, match="integer class indices"):
        gradient_norm_bound(LOGITS_BC, TARGETS_B.float())
    with pytest.raises(ValueError, match="floating point"):
        entropy_score(LOGITS_BC.long())


def test_the_softmax_of_one_class_is_refused():
    one_B1, targets_B = torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64)
    for score in (
        lambda: entropy_score(one_B1),
        lambda: cross_entropy_score(one_B1, targets_B),
        lambda: gradient_norm_bound(one_B1, targets_B),
    ):
        with pytest.raises(ValueError, match="C >= 2"):
            score()


@pytest.mark.parametrize("target", [-100, -1, 3])
def test_a_target_outside_the_classes_is_an_error_and_not_a_loss_of_zero(target):
    with pytest.raises(RuntimeError, match="out of bounds"):
        cross_entropy_score(LOGITS_BC[:1], torch.tensor([target]))
    with pytest.raises(RuntimeError, match="out of bounds"):
        gradient_norm_bound(LOGITS_BC[:1], torch.tensor([target]))
