"""Choosing the candidates at one end of a score. B = candidates, b = selected. The rules are those of `select`."""

import math

import torch
from torch import Tensor

from common.selection.checks import check_count, check_vector


def lowest(scores_B: Tensor, num: int) -> Tensor:
    """Indices of the `num` lowest finite scores, the lowest first.

    Stable, so constant scores give the first `num` candidates. Candidates come in a keyed random order, which makes
    those a uniform draw without replacement; no generator is needed. Methods that sample take one (`Method.select`).

    Args:
        scores_B: (B,), any real dtype; NaN marks a dropped candidate.
        num: how many to take, >= 0.

    Returns:
        (b,) int64 on the device of the scores, b = min(num, number of finite scores). No index repeats.

    Raises:
        ValueError: the scores are not a vector, or `num` is negative.
    """
    return _first(scores_B, num, descending=False)


def highest(scores_B: Tensor, num: int) -> Tensor:
    """Indices of the `num` highest finite scores, the highest first; otherwise as `lowest`."""
    return _first(scores_B, num, descending=True)


def _first(scores_B: Tensor, num: int, *, descending: bool) -> Tensor:
    check_vector("scores_B", scores_B)
    check_count("num", num)
    if scores_B.device.type == "cpu":
        return _first_on_cpu(scores_B, num, descending=descending)
    finite_B = scores_B.isfinite()
    # torch.sort takes NaN for the largest value, so what is not finite goes last by hand, in either direction. A stable
    # descending sort keeps equal scores in their order.
    last = -math.inf if descending else math.inf
    keys_B = scores_B.double().where(finite_B, last)
    order_B = keys_B.sort(stable=True, descending=descending).indices
    return order_B[: min(num, int(finite_B.sum()))]


def _first_on_cpu(scores_B: Tensor, num: int, *, descending: bool) -> Tensor:
    """The same with numpy's sort: of the few candidates of a step in a fraction of torch's time."""
    scores_B = scores_B.detach()
    keys_B = (scores_B if scores_B.dtype == torch.float32 else scores_B.double()).numpy()
    finite_B = abs(keys_B) < math.inf
    num_finite = int(finite_B.sum())
    keys_B = -keys_B if descending else keys_B
    if num_finite < len(keys_B):
        keys_B = keys_B.copy()
        keys_B[~finite_B] = math.inf
    return torch.from_numpy(keys_B.argsort(kind="stable")[: min(num, num_finite)])
