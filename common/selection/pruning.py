"""Leaving out well-learned samples for an epoch. N = samples of the data set, n = those whose loss is known."""

import torch
from torch import Tensor

from common.selection.checks import check_vector
from common.selection.sampling import coins


def soft_prune(last_losses_N: Tensor, keep_ratio: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """InfoBatch: a random share of the samples below the mean loss, weighted up, and all of the others.

    Qin et al. 2024, arXiv:2303.04947: each sample strictly below the mean is kept by a coin of its own, so that
    the expected gradient is that of the whole data set. The authors' code keeps exactly int(share · number) of them.

    Args:
        last_losses_N: (N,) last known losses. What is not finite counts as not known: it is no part of the mean, and
            the sample is kept with weight 1.
        keep_ratio: in (0, 1]; 1 keeps everything.
        generator: takes N random numbers from it, whatever the losses.

    Returns:
        Indices (k,) int64, ascending, and weights (k,) float32: 1/keep_ratio below the mean, else 1.

    Raises:
        ValueError: not a vector, a ratio outside (0, 1], or no generator.
    """
    check_vector("last_losses_N", last_losses_N)
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"keep_ratio must be in (0, 1], got {keep_ratio}")
    losses_N = last_losses_N.double()
    known_N = last_losses_N.isfinite()
    below_N = torch.zeros_like(known_N)
    if bool(known_N.any()):
        known_n = losses_N[known_N]
        # The mean of equal numbers may round to above them, and all of them would be below it.
        below_N = known_N & (losses_N < known_n.mean().clamp(max=known_n.amax()))
    kept_N = coins(torch.where(below_N, keep_ratio, 1.0), generator)
    weights_N = torch.where(below_N, 1 / keep_ratio, 1.0).float()
    indices_k = kept_N.nonzero()[:, 0]
    return indices_k, weights_N[indices_k]
