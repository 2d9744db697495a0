"""How far two scorings agree: planted overlaps and rank correlations, and a slow reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.selection.agreement import rank_correlation, selected_overlap

NAN = float("nan")
# Small integers: ties are common.
PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=12)


def slow_correlation(first: list[float], second: list[float]) -> float:
    """Pearson's of the ranks; the rank of a score is 1 + #smaller + (#equal others) / 2."""
    ranks = [[1 + sum(b < a for b in side) + (side.count(a) - 1) / 2 for a in side] for side in (first, second)]
    x, y = ([rank - sum(side) / len(side) for rank in side] for side in ranks)
    scale = math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / scale if scale else NAN


def slow_overlap(first: list[float], second: list[float], num: int) -> float:
    """|A ∩ B| / b of the b lowest, ties to the earlier."""
    chosen = [set(sorted(range(len(side)), key=lambda i: (side[i], i))[:num]) for side in (first, second)]
    return len(chosen[0] & chosen[1]) / len(chosen[0]) if first else NAN


@pytest.mark.parametrize("num_common", range(9))
def test_a_planted_overlap_is_found(num_common: int) -> None:
    first = torch.arange(40.0)  # 0 to 7 are hardest
    second = torch.arange(40.0) + 100
    second[:num_common] = torch.arange(num_common, dtype=torch.float32)
    second[20 : 28 - num_common] = -torch.arange(1.0, 9 - num_common)
    for ours, theirs in ((first, second), (second, first)):
        assert selected_overlap(ours, theirs, 8, lowest_is_hard=True) == num_common / 8
        assert selected_overlap(-ours, -theirs, 8, lowest_is_hard=False) == num_common / 8


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([1, 2, 3, 4, 5], 1.0),
        ([10, 20, 30, 40, 1000], 1.0),  # ranks only
        ([5, 4, 3, 2, 1], -1.0),
        ([2, 1, 4, 3, 5], 0.8),  # 1 - 6 · Σd² / n(n² - 1) = 1 - 6 · 4 / 120
        ([1, 2, 2, 4, 5], 9.5 / math.sqrt(10 * 9.5)),  # the tie shares rank 2.5
        ([7, 7, 7, 7, 7], NAN),
    ],
)
def test_a_planted_correlation_is_found(second: list[float], expected: float) -> None:
    got = rank_correlation(torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor(second, dtype=torch.float32))
    assert got == pytest.approx(expected, nan_ok=True)


@given(PAIRS, st.integers(1, 6))
@settings(max_examples=60)
def test_both_agree_with_slow_references(pairs: list[tuple[int, int]], num: int) -> None:
    first, second = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    tensors = torch.tensor(first), torch.tensor(second)
    assert rank_correlation(*tensors) == pytest.approx(slow_correlation(first, second), nan_ok=True)
    overlap = selected_overlap(*tensors, num, lowest_is_hard=True)
    assert overlap == pytest.approx(slow_overlap(first, second, num), nan_ok=True)


def test_independent_scorings_agree_by_the_selected_share() -> None:
    generator = torch.Generator().manual_seed(1)
    overlaps = [selected_overlap(*torch.rand(2, 200, generator=generator), 40, lowest_is_hard=True) for _ in range(400)]
    # hypergeometric: variance of the number in common is 40 · 40/200 · 160/200 · 160/199
    deviation = math.sqrt(40 * 0.2 * 0.8 * 160 / 199) / 40 / math.sqrt(400)
    assert sum(overlaps) / 400 == pytest.approx(0.2, abs=4 * deviation)


def test_candidates_dropped_in_either_scoring_are_left_out_of_both() -> None:
    first = torch.tensor([NAN, 1, 2, 3, 4, float("inf")])
    second = torch.tensor([0, NAN, 2, 3, 4, 5.0])
    assert rank_correlation(first, second) == pytest.approx(1.0)
    assert selected_overlap(first, second, 1, lowest_is_hard=True) == 1.0  # without 0 and 1, both choose 2
    assert selected_overlap(first, second, 5, lowest_is_hard=True) == 1.0  # three are left


@pytest.mark.parametrize("scores", [torch.empty(0), torch.full((3,), NAN)])
def test_nothing_to_compare_is_no_number(scores: Tensor) -> None:
    assert math.isnan(rank_correlation(scores, scores))
    assert math.isnan(selected_overlap(scores, scores, 2, lowest_is_hard=True))


def test_arguments_that_make_no_sense_are_refused() -> None:
    scores = torch.rand(3)
    with pytest.raises(ValueError, match="num must be >= 1, got 0"):
        selected_overlap(scores, scores, 0, lowest_is_hard=True)
    with pytest.raises(ValueError, match="one length, got 3 and 2"):
        rank_correlation(scores, scores[:2])
    with pytest.raises(ValueError, match="must be a vector"):
        rank_correlation(scores, scores[None])
