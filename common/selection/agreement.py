"""How far two scorings of the same candidates agree. B = candidates.

Candidates whose score is not finite in either scoring are left out of both: nobody could have selected them.
"""

import torch
from torch import Tensor

from common.selection.checks import check_same_length, check_vector
from common.selection.ranking import highest, lowest


def selected_overlap(first_B: Tensor, second_B: Tensor, num: int, *, lowest_is_hard: bool) -> float:
    """Share of the `num` hardest candidates by one scoring that are among the `num` hardest by the other.

    Two independent scorings agree by num / B on average.

    Args:
        first_B, second_B: (B,) scores of the same candidates, any real dtype.
        num: how many each selects, >= 1; at most as many as there are candidates finite in both.
        lowest_is_hard: which end is selected.

    Returns:
        In [0, 1]; symmetric. NaN if no candidate is finite in both.

    Raises:
        ValueError: the scores are no vectors of one length, or `num` is below 1.
    """
    if num < 1:
        raise ValueError(f"num must be >= 1, got {num}")
    first_B, second_B = _finite_in_both(first_B, second_B)
    num = min(num, len(first_B))
    if num == 0:
        return float("nan")
    hardest = lowest if lowest_is_hard else highest
    common = torch.isin(hardest(first_B, num), hardest(second_B, num))
    return float(common.sum()) / num


def rank_correlation(first_B: Tensor, second_B: Tensor) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, equal scores sharing the mean of theirs.

    Spearman 1904, "The proof and measurement of association between two things".

    Args:
        first_B, second_B: (B,) scores of the same candidates, any real dtype.

    Returns:
        In [-1, 1], 1 for the same order; NaN with fewer than two candidates finite in both, or where all scores of one
        side are equal.

    Raises:
        ValueError: the scores are no vectors of one length.
    """
    ranks = [_mean_ranks(scores_B) for scores_B in _finite_in_both(first_B, second_B)]
    first_B, second_B = (ranks_B - ranks_B.mean() if len(ranks_B) else ranks_B for ranks_B in ranks)
    scale = (first_B.square().sum() * second_B.square().sum()).sqrt()
    if len(first_B) < 2 or float(scale) == 0:
        return float("nan")
    return float(((first_B * second_B).sum() / scale).clamp(-1, 1))


def _finite_in_both(first_B: Tensor, second_B: Tensor) -> tuple[Tensor, Tensor]:
    check_vector("first_B", first_B)
    check_vector("second_B", second_B)
    check_same_length("first_B", first_B, "second_B", second_B)
    finite_B = first_B.isfinite() & second_B.isfinite()
    return first_B[finite_B], second_B[finite_B]


def _mean_ranks(scores_B: Tensor) -> Tensor:
    """(B,) float64 from 0: the place of each score, or the mean of the places that equal scores take."""
    _, inverse_B, counts = scores_B.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0) - 1
    return (last - (counts - 1) / 2.0).double()[inverse_B]
