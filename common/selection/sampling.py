"""Drawing candidates at random. B = candidates, n = finite ones, b = draws.

torch.multinomial is not used: it takes at most 2^24 candidates and gives up on a sum that is zero. Random numbers are
float64 and come from the device of the generator, so one on the CPU draws the same candidates for every device.
"""

import torch
from torch import Tensor

from common.selection.checks import check_count, check_not_negative, check_vector, scaled
from common.selection.ranking import highest


def sample_without_replacement(probability_B: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw `num` different candidates, one after the other, each proportional to p among those that are left.

    By keys of Efraimidis & Spirakis 2006: candidate i arrives after an exponential time of rate p_i, and the first
    `num` are taken. Once all of positive probability are taken, the rest is drawn uniformly from those of probability
    0; so constant or all-zero probabilities give a uniform draw.

    Args:
        probability_B: (B,), >= 0, any scale. What is not finite is a dropped candidate, never drawn; one that was
            dropped and has probability 0 can be drawn once nothing else is left, so NaN is what it needs here:
            `torch.where(scores_B.isfinite(), probability_B, math.nan)`.
        num: how many, >= 0.
        generator: takes B random numbers from it, whatever the probabilities.

    Returns:
        (b,) int64 in the order drawn, b = min(num, n).

    Raises:
        ValueError: not a vector, a negative probability or count, or no generator.
    """
    check_not_negative("probability_B", probability_B)
    check_count("num", num)
    log_times_B = (-torch.log1p(-uniforms(len(probability_B), generator, probability_B.device))).log()
    # A time of 0, one in 2^53, has to stay finite: what is not finite is never taken.
    log_times_B = log_times_B.clamp(min=-1e3)
    positive_B = (probability_B > 0) & probability_B.isfinite()
    drawn_b = highest((probability_B.double().log() - log_times_B).masked_fill(~positive_B, torch.nan), num)
    if len(drawn_b) == num:
        return drawn_b
    rest_b = highest((-log_times_B).masked_fill(probability_B != 0, torch.nan), num - len(drawn_b))
    return torch.cat([drawn_b, rest_b])


def sample_with_replacement(probability_B: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw `num` candidates, each time proportional to p among all: `inverse_cdf` at random numbers.

    Args:
        probability_B: (B,), >= 0, any scale; what is not finite is never drawn. Constant or all-zero ones are drawn
            without replacement, round after round, which keeps the share of each.
        num: how many, >= 0.
        generator: takes `num` random numbers from it.

    Returns:
        (num,) int64 in the order drawn, with repeats; empty where no probability is finite.

    Raises:
        ValueError: not a vector, a negative probability or count, or no generator.
    """
    check_not_negative("probability_B", probability_B)
    check_count("num", num)
    return inverse_cdf(probability_B, uniforms(num, generator, probability_B.device))


def inverse_cdf(scores_B: Tensor, uniforms_b: Tensor) -> Tensor:
    """Draws proportional to the score: the first position whose cumulative share reaches each uniform number.

    The scores are sorted descending (of equal ones the earlier first), summed up and divided by their sum. After
    Knutsson et al. 2023, doi:10.2312/vcbm.20231212. A score of 0 is never drawn beside a positive one.

    Finite scores that are all equal, zero or not, have no such order. The numbers are then spent on a uniform draw
    without replacement: each takes the floor(u·m)-th of the m that are left, and once none is left all return. So up to
    n draws do not repeat, and no candidate is drawn twice more often than another.

    Args:
        scores_B: (B,), >= 0; what is not finite is never drawn.
        uniforms_b: (b,) in [0, 1), float64 where B is large.

    Returns:
        (b,) int64 into the scores, with repeats, beside the uniform numbers; empty where no score is finite.

    Raises:
        ValueError: not vectors, a negative score, or a number outside [0, 1).
    """
    check_not_negative("scores_B", scores_B)
    check_vector("uniforms_b", uniforms_b)
    outside_b = ~((uniforms_b >= 0) & (uniforms_b < 1))
    if bool(outside_b.any()):
        first = int(outside_b.nonzero()[0, 0])
        raise ValueError(f"uniforms_b must be in [0, 1), got {float(uniforms_b[first])} at position {first}")
    order_n = highest(scores_B, len(scores_B))
    if not len(order_n) or scores_B[order_n[0]] == scores_B[order_n[-1]]:
        return _in_rounds(order_n, uniforms_b.to(order_n.device))
    cumulative_n = scaled(scores_B)[order_n].cumsum(dim=0)
    cumulative_n = cumulative_n / cumulative_n[-1]  # the last is exactly 1, above every uniform number
    return order_n[torch.searchsorted(cumulative_n, uniforms_b.to(cumulative_n))]


def coins(probability_B: Tensor, generator: torch.Generator) -> Tensor:
    """One independent coin per candidate: True with its probability, never at 0, always at 1.

    Nothing is made up for probabilities that are all 0: see `never_all_zero`.

    Args:
        probability_B: (B,) in [0, 1]; what is not finite is False.
        generator: takes B random numbers from it, whatever the probabilities.

    Returns:
        (B,) bool.

    Raises:
        ValueError: not a vector, a finite probability outside [0, 1], or no generator.
    """
    check_not_negative("probability_B", probability_B)
    above_B = (probability_B > 1) & probability_B.isfinite()
    if bool(above_B.any()):
        first = int(above_B.nonzero()[0, 0])
        raise ValueError(f"probability_B must be <= 1, got {float(probability_B[first])} at position {first}")
    tossed_B = uniforms(len(probability_B), generator, probability_B.device)
    return (tossed_B < probability_B) & probability_B.isfinite()


def uniforms(num: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(num,) float64 in [0, 1) from the generator alone, moved to `device`."""
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator keyed on (seed, chunk), got {generator!r}")
    return torch.rand(num, generator=generator, dtype=torch.float64, device=generator.device).to(device)


def _in_rounds(candidates_n: Tensor, uniforms_b: Tensor) -> Tensor:
    """Fisher-Yates: each number takes one of the candidates that are left; all are back when none is. O(n + b)."""
    everything: list[int] = candidates_n.tolist()
    left: list[int] = []
    drawn: list[int] = []
    for u in uniforms_b.tolist() if everything else []:
        left = left or everything.copy()
        taken = int(u * len(left))
        left[taken], left[-1] = left[-1], left[taken]
        drawn.append(left.pop())
    return torch.tensor(drawn, dtype=torch.int64, device=candidates_n.device)
