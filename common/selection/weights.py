"""Weights of selected samples and what they are worth. B = candidates, n = finite ones, b = draws, u = unique draws."""

import math

import torch
from torch import Tensor

from common.selection.checks import check_indices, check_not_negative, check_same_length, check_vector, scaled

SCORE_FLOOR = 1e-6
_LARGEST = torch.finfo(torch.float32).max


def importance_weights(probability_b: Tensor, num_candidates: int) -> Tensor:
    """1/(B·p_i): makes the mean over draws of probability p an unbiased estimate of the mean over the B candidates.

    Katharopoulos & Fleuret 2018, arXiv:1803.00942; Alain et al. 2015, arXiv:1511.06481.

    Args:
        probability_b: (b,) in (0, 1], of the drawn ones: the probability that was actually used, old or not.
        num_candidates: B, the number of candidates with a finite score, over which the probabilities sum to 1.

    Returns:
        (b,) float32, > 0; the largest float32 where it would overflow.

    Raises:
        ValueError: not a vector, a probability outside (0, 1] (a sample of such cannot be drawn), or B < 1 for b > 0.
    """
    check_vector("probability_b", probability_b)
    if num_candidates < min(1, len(probability_b)):
        raise ValueError(f"num_candidates must be >= {min(1, len(probability_b))}, got {num_candidates}")
    wrong_b = ~((probability_b > 0) & (probability_b <= 1))
    if bool(wrong_b.any()):
        first = int(wrong_b.nonzero()[0, 0])
        raise ValueError(f"probability_b must be in (0, 1], got {float(probability_b[first])} at position {first}")
    return (1 / (num_candidates * probability_b.double())).clamp(max=_LARGEST).float()


def biased_weights(scores_B: Tensor, indices_b: Tensor, k: float) -> Tensor:
    """ŵ = w^k · Σ_selected(w s) / Σ_selected(w^k s) with w = (Σs)/n/s, for draws with p ∝ s.

    Katharopoulos & Fleuret 2017, arXiv:1706.00043. Scores are floored at 1e-6, as for the probabilities of that method;
    so all-zero and constant scores give weights of 1.

    Args:
        scores_B: (B,) predicted losses, any real dtype; what is not finite does not count.
        indices_b: (b,) integers into the scores; repeats count as often as they occur.
        k: at most 1. 1 is unbiased, 0 gives every sample the same weight, below 0 leans to the maximum loss.

    Returns:
        (b,) float32, >= 0.

    Raises:
        ValueError: not vectors, no integers, k above 1 or not finite, an index outside the scores, or one of a score
            that is not finite.
    """
    check_vector("scores_B", scores_B)
    check_indices("indices_b", indices_b)
    if not -math.inf < k <= 1:
        raise ValueError(f"k must be a finite number <= 1, got {k}")
    outside_b = (indices_b < 0) | (indices_b >= len(scores_B))
    if bool(outside_b.any()):
        wrong = int(indices_b[outside_b][0])
        raise ValueError(f"indices_b must be in [0, {len(scores_B)}), the length of scores_B, got {wrong}")
    finite_B = scores_B.isfinite()
    if not bool(finite_B[indices_b].all()):
        wrong = int(indices_b[~finite_B[indices_b]][0])
        raise ValueError(f"indices_b must choose finite scores, got {wrong} with score {float(scores_B[wrong])}")
    if not len(indices_b):
        return torch.zeros(0, dtype=torch.float32, device=scores_B.device)
    # In logarithms, since w^k has no range that a float could hold: k = -100 is allowed.
    log_s_B = scores_B.double().clamp(min=SCORE_FLOOR).log()
    log_mean = log_s_B.masked_fill(~finite_B, -math.inf).logsumexp(dim=0) - finite_B.sum().double().log()
    log_s_b = log_s_B[indices_b]
    log_wk_b = k * (log_mean - log_s_b)
    log_factor = math.log(len(indices_b)) + log_mean - (log_wk_b + log_s_b).logsumexp(dim=0)  # w s is the mean, b times
    return (log_wk_b + log_factor).exp().clamp(max=_LARGEST).float()


def variance_reduction_tau(scores_B: Tensor) -> float:
    """√(n Σ g²) with g = s/Σs: how many times larger a uniform batch would have to be for the same variance.

    Katharopoulos & Fleuret 2018, arXiv:1803.00942. Waits for the device.

    Args:
        scores_B: (B,), >= 0; what is not finite does not count.

    Returns:
        In [1, √n]: 1 where all are equal, zero or absent, √n where a single one is positive.

    Raises:
        ValueError: not a vector, or a negative score.
    """
    check_not_negative("scores_B", scores_B)
    scores_n = scaled(scores_B[scores_B.isfinite()])
    num, total = len(scores_n), float(scores_n.sum())
    if total == 0:
        return 1.0
    return min(max(math.sqrt(num * float((scores_n / total).square().sum())), 1.0), math.sqrt(num))


def collapse_duplicates(indices_b: Tensor, weights_b: Tensor) -> tuple[Tensor, Tensor]:
    """One row for each drawn sample, so that no sample goes through the network twice.

    A sample drawn m times with weight w becomes one row of m·w·u/b (its weights are added where they differ): the mean
    over the u rows equals that over the b draws, and the divisor of the loss stays b. Steps that need fixed shapes do
    not collapse.

    Args:
        indices_b: (b,) integers, with repeats.
        weights_b: (b,) floating point, beside them.

    Returns:
        (u,) int64 in order of first appearance, and (u,) float32 beside them.

    Raises:
        ValueError: not vectors of one length, or indices that are no integers.
    """
    check_indices("indices_b", indices_b)
    check_vector("weights_b", weights_b)
    check_same_length("indices_b", indices_b, "weights_b", weights_b)
    num_draws, device = len(indices_b), indices_b.device
    sorted_u, group_b = torch.unique(indices_b.long(), return_inverse=True)
    num_rows = len(sorted_u)
    positions_b = torch.arange(num_draws, device=device)
    first_u = torch.full((num_rows,), num_draws, device=device).scatter_reduce(0, group_b, positions_b, "amin")
    total_u = torch.zeros(num_rows, dtype=torch.float64, device=device).index_add(0, group_b, weights_b.double())
    order_u = first_u.argsort()
    return sorted_u[order_u], (total_u[order_u] * num_rows / max(num_draws, 1)).float()
