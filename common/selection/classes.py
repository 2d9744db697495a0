"""Hard-negative mining with balanced classes. B = candidates, n = finite ones, b = selected, C = classes."""

import math

import torch
from torch import Tensor

from common.selection.checks import check_count, check_indices, check_same_length, check_vector
from common.selection.ranking import highest
from common.selection.sampling import uniforms


def class_balanced_hardest(
    losses_B: Tensor,
    targets_B: Tensor,
    num: int,
    hard_fraction: float,
    class_order: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The hardest of each class in turn, then random ones of each class in turn.

    Balanced hard-negative mining of Weinstein, Fine & Hel-Or 2019, arXiv:1911.06996: round-robin over the classes takes
    the highest loss left of each until ceil(hard_fraction · num) are taken; then the rest is shuffled, and round-robin
    goes on from the next class until `num`. A class with none left is skipped. They anneal with
    hard_fraction = min(1, 0.1·(epoch + 1)).

    Args:
        losses_B: (B,), any real dtype; what is not finite is never taken.
        targets_B: (B,) integer class of each.
        num: how many to take, >= 0.
        hard_fraction: in [0, 1].
        class_order: (C,) integers, every class once, shuffled by the caller for each batch.
        generator: takes B random numbers from it, whatever the fraction.

    Returns:
        (b,) int64 in the order taken, b = min(num, n). No index repeats.

    Raises:
        ValueError: shapes or dtypes are not as above, `num` or the fraction is out of range, a class is twice in the
            order or a target not in it, or there is no generator.
    """
    check_vector("losses_B", losses_B)
    check_indices("targets_B", targets_B)
    check_same_length("losses_B", losses_B, "targets_B", targets_B)
    check_count("num", num)
    if not 0 <= hard_fraction <= 1:
        raise ValueError(f"hard_fraction must be in [0, 1], got {hard_fraction}")
    places_B = _places(targets_B, class_order)
    shuffled_B = uniforms(len(losses_B), generator, losses_B.device)

    order_n = highest(losses_B, len(losses_B))
    rounds_n = order_n[_round_robin(places_B[order_n])]
    # Rounded first: 0.1 · 3 is a little more than 0.3, and of 10 it would make 4.
    num_hard = math.ceil(round(hard_fraction * num, 6))
    hard_h, rest_r = rounds_n[:num_hard], rounds_n[num_hard:]
    if len(hard_h):  # the class after the last one is next
        places_B = (places_B - places_B[hard_h[-1]] - 1) % len(class_order)
    rest_r = rest_r[shuffled_B[rest_r].argsort(stable=True)]
    rest_r = rest_r[_round_robin(places_B[rest_r])]
    return torch.cat([hard_h, rest_r])[:num]


def _places(targets_B: Tensor, class_order: Tensor) -> Tensor:
    """Where in the order each target's class stands."""
    check_indices("class_order", class_order)
    sorted_C, places_C = class_order.to(targets_B.device).long().sort()
    twice_C = sorted_C[1:][sorted_C[1:] == sorted_C[:-1]]
    if len(twice_C):
        raise ValueError(f"class_order must name every class once, got {int(twice_C[0])} twice")
    targets_B = targets_B.long()
    if not len(targets_B):
        return targets_B
    if not len(sorted_C):
        raise ValueError(f"class_order must name the classes of targets_B, got none and target {int(targets_B[0])}")
    found_B = torch.searchsorted(sorted_C, targets_B).clamp(max=len(sorted_C) - 1)
    missing_B = sorted_C[found_B] != targets_B
    if bool(missing_B.any()):
        raise ValueError(f"targets_B must be classes of class_order, got {int(targets_B[missing_B][0])}")
    return places_C[found_B]


def _round_robin(places_n: Tensor) -> Tensor:
    """Permutation that takes the first of each place in ascending order, then the second of each, and so on."""
    if not len(places_n):
        return places_n
    by_place_n = places_n.argsort(stable=True)
    sorted_n = places_n[by_place_n]
    turn_n = torch.arange(len(places_n), device=places_n.device) - torch.searchsorted(sorted_n, sorted_n)
    return by_place_n[turn_n.argsort(stable=True)]
