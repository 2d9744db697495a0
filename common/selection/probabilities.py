"""Probabilities of candidates from their scores. B = candidates, N = samples of the data set, H = history,
n = those of B or N with a finite score.

`percentile_probability` gives one coin per candidate; the others give a distribution, which sums to 1. A candidate
whose score is not finite has probability 0 in all of them. A sampler that may have to take candidates of probability 0
(`sample_without_replacement`) cannot tell those apart from dropped ones: set the dropped ones to NaN for it.
"""

import math

import torch
from torch import Tensor

from common.selection.checks import check_not_negative, check_same_length, check_vector, scaled
from common.selection.ranking import highest


def percentile_probability(losses_B: Tensor, history_H: Tensor, beta: float, kind: str = "strict") -> Tensor:
    """Selective-Backprop: the share of the history below each loss, to the power beta; large losses are likely.

    Jiang et al. 2019, arXiv:1910.00762. This is the formula as it stands: losses that are all equal, and the smallest
    of the history, give p = 0 for all of them, for ever. Whoever tosses the coins passes them through `never_all_zero`.

    Args:
        losses_B: (B,), any real dtype.
        history_H: (H,) recent losses, the B of this batch already among them. What is not finite does not count.
        beta: >= 0; 1, 2, 3 keep about 1/2, 1/3, 1/4.
        kind: "strict" counts the losses strictly below, as the paper; "mid" adds half of those that are equal, and is
            never 0 for a loss of the history.

    Returns:
        (B,) float32 in [0, 1]; 0 for all where the history has no finite loss.

    Raises:
        ValueError: losses or history are not vectors, beta is negative or not finite, or the kind is another.
    """
    check_vector("losses_B", losses_B)
    check_vector("history_H", history_H)
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta must be a finite number >= 0, got {beta}")
    if kind not in ("strict", "mid"):
        raise ValueError(f"kind must be 'strict' or 'mid', got {kind!r}")
    finite_B = losses_B.isfinite()
    losses_B = torch.where(finite_B, losses_B.double(), 0.0)
    sorted_h = history_H[history_H.isfinite()].double().sort().values
    if not len(sorted_h):
        return torch.zeros_like(losses_B, dtype=torch.float32)
    below_B = torch.searchsorted(sorted_h, losses_B).double()
    if kind == "mid":
        below_B = (below_B + torch.searchsorted(sorted_h, losses_B, right=True)) / 2
    return torch.where(finite_B, (below_B / len(sorted_h)) ** beta, 0.0).float()


def never_all_zero(probability_B: Tensor, scores_B: Tensor, share: float) -> Tensor:
    """The probabilities, or `share` for every candidate with a finite score where none of them has a positive one.

    For coins: a batch of equal losses that are the smallest of the history has p = 0 in Selective-Backprop, and no
    later batch would get out of it. With share = 1/(beta + 1), what it keeps in the mean, the stream goes on as usual.

    Args:
        probability_B: (B,), >= 0.
        scores_B: (B,) what they were computed from; not finite marks a dropped candidate.
        share: in (0, 1].

    Returns:
        (B,) float32; 0 for dropped candidates.

    Raises:
        ValueError: shapes differ, a probability is negative, or the share is outside (0, 1].
    """
    check_not_negative("probability_B", probability_B)
    check_vector("scores_B", scores_B)
    check_same_length("probability_B", probability_B, "scores_B", scores_B)
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    finite_B = scores_B.isfinite() & probability_B.isfinite()
    probability_B = torch.where(finite_B, probability_B.float(), 0.0)
    equal_B = torch.where(scores_B.isfinite(), share, 0.0).to(probability_B)
    return torch.where((probability_B > 0).any(), probability_B, equal_B)


def rank_power_probability(losses_B: Tensor, keep: float) -> Tensor:
    """p_r ∝ ((r + 1/2)/n)^(1/keep - 1) over the ascending ranks r = 0 … n-1; large losses are likely.

    The continuous form of Selective-Backprop's percentile to the power beta = 1/keep - 1 (arXiv:1910.00762) without a
    history. Of equal losses the earlier one has the higher rank; if all are equal, so are the probabilities.

    Args:
        losses_B: (B,), any real dtype.
        keep: in (0, 1]; the smaller, the more the largest losses are preferred. 1 is uniform. As coins that keep this
            share in the mean, use keep·n·p, at most 1.

    Returns:
        (B,) float32, sums to 1.

    Raises:
        ValueError: the losses are not a vector, or keep is outside (0, 1].
    """
    check_vector("losses_B", losses_B)
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be in (0, 1], got {keep}")
    order_n = highest(losses_B, len(losses_B))
    num = len(order_n)
    ascending_n = torch.arange(num - 1, -1, -1, dtype=torch.float64, device=losses_B.device)
    return _by_rank(losses_B, order_n, ((ascending_n + 0.5) / max(num, 1)).log() * (1 / keep - 1))


def exponential_rank_probability(losses_N: Tensor, pressure: float) -> Tensor:
    """p_i ∝ exp(-ln(pressure)/n)^i with rank i = 1 for the highest loss.

    Loshchilov & Hutter 2015, arXiv:1511.06343. The highest is `pressure` times as likely as a rank n further down. Of
    equal losses the earlier one has the better rank; if all are equal, so are the probabilities.

    Args:
        losses_N: (N,) last known losses of the data set, any real dtype.
        pressure: s_e >= 1, finite; 1 is uniform. See `pressure_at`.

    Returns:
        (N,) float32, sums to 1.

    Raises:
        ValueError: the losses are not a vector, or the pressure is below 1 or not finite.
    """
    check_vector("losses_N", losses_N)
    _check_pressure("pressure", pressure)
    order_n = highest(losses_N, len(losses_N))
    num = len(order_n)
    ranks_n = torch.arange(1, num + 1, dtype=torch.float64, device=losses_N.device)
    return _by_rank(losses_N, order_n, -math.log(pressure) / max(num, 1) * ranks_n)


def pressure_at(epoch: float, start: float, end: float, num_epochs: float) -> float:
    """Selection pressure start · exp(ln(end/start)/num_epochs)^epoch, from `start` at epoch 0 to `end` at `num_epochs`.

    Loshchilov & Hutter 2015, arXiv:1511.06343; they suggest 100 to 1. After `num_epochs` it stays at `end`: going on,
    a decay to 1 would turn the preference round.

    Raises:
        ValueError: a pressure is below 1 or not finite, epoch < 0, or num_epochs <= 0.
    """
    _check_pressure("start", start)
    _check_pressure("end", end)
    if not epoch >= 0:
        raise ValueError(f"epoch must be >= 0, got {epoch}")
    if not num_epochs > 0:
        raise ValueError(f"num_epochs must be > 0, got {num_epochs}")
    if epoch >= num_epochs:
        return float(end)
    return min(max(start * (end / start) ** (epoch / num_epochs), min(start, end)), max(start, end))


def proportional_probability(scores_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """(s_i + c) / Σ(s_j + c) over the finite scores; equal probabilities where the sum is 0.

    Args:
        scores_B: (B,), >= 0.
        smoothing: c >= 0, finite, in units of the scores; above 0 every finite candidate can be drawn.

    Returns:
        (B,) float32, sums to 1, or all 0 where no score is finite.

    Raises:
        ValueError: the scores are not a vector, one is negative, or the smoothing is negative or not finite.
    """
    check_not_negative("scores_B", scores_B)
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing must be a finite number >= 0, got {smoothing}")
    # The smoothing rides along as a last score: both are scaled by one factor.
    with_smoothing = scaled(torch.cat([scores_B.double(), scores_B.new_tensor([smoothing], dtype=torch.float64)]))
    finite_B = scores_B.isfinite()
    mass_B = torch.where(finite_B, with_smoothing[:-1] + with_smoothing[-1], 0.0)
    mass_B = torch.where(mass_B.sum() > 0, mass_B, finite_B.double())
    return (mass_B / mass_B.sum().clamp(min=torch.finfo(torch.float64).tiny)).float()


def _by_rank(losses_B: Tensor, order_n: Tensor, log_mass_n: Tensor) -> Tensor:
    """Normalised masses put back at `order_n`, the finite losses from the highest down; equal ones if those are."""
    probability_B = torch.zeros_like(losses_B, dtype=torch.float32)
    if not len(order_n):
        return probability_B
    constant = losses_B[order_n[0]] == losses_B[order_n[-1]]
    probability_n = log_mass_n.masked_fill(constant, 0.0).softmax(dim=0).float()
    return probability_B.index_copy(0, order_n, probability_n)


def _check_pressure(name: str, value: float) -> None:
    if not 1 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number >= 1, got {value}")
