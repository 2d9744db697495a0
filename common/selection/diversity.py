"""Choosing gradients that together span the mean. B = candidates, n = finite ones, b = selected, D = parameters,
C = classes, H = features of the last layer.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from common.selection.checks import check_count

# Inner products that differ by less, relative to the norms, are ties: their difference is rounding.
_TIE = 1e-11
# A gradient lies in the span of the selected ones where less than this share of its square is orthogonal to them.
_DEPENDENT = 1e-12


def diverse(gradients_BD: Tensor, num: int) -> Tensor:
    """Greedy arg max <g_i, r> on the residual r of the mean gradient, which each choice makes orthogonal to itself.

    DivBS, Hong et al. 2024, arXiv:2406.04872: Gram-Schmidt turns each chosen gradient into a unit vector orthogonal to
    those before it, and r loses its part along that. (The authors' code draws i in proportion to |<g_i, r>| instead.)
    Once r is zero (the selected span the mean; constant gradients; zeros) all the others tie, and the earlier ones
    follow. Candidates come in a keyed random order.

    Args:
        gradients_BD: (B, D) any real dtype; one float64 copy is made. A row with a value that is not finite is never
            chosen and no part of the mean.
        num: how many, >= 0.

    Returns:
        (b,) int64 in the order chosen, b = min(num, n). No index repeats.

    Raises:
        ValueError: the gradients are not a matrix, or `num` is negative.
    """
    _check_matrix("gradients_BD", gradients_BD)
    check_count("num", num)
    finite_B = gradients_BD.isfinite().all(dim=1)
    gradients_BD = _unit_scale(gradients_BD, finite_B)
    mean_D = gradients_BD.sum(dim=0) / finite_B.sum().clamp(min=1)
    return _greedy(
        squares_B=gradients_BD.square().sum(dim=1),
        with_mean_B=gradients_BD @ mean_D,
        mean_square=mean_D.square().sum(),
        products_with=lambda i: gradients_BD @ gradients_BD[i],
        finite_B=finite_B,
        num=num,
    )


def diverse_factored(errors_BC: Tensor, features_BH: Tensor, num: int) -> Tensor:
    """`diverse` for the last layer's gradients g_i = errors_i features_iᵀ, which are never formed.

    <g_i, g_j> = (errors_i · errors_j)(features_i · features_j). Needs O(B·(C + H + num)) numbers and one (C, H) mean
    gradient, the size of the layer's weight.

    Args:
        errors_BC: (B, C) softmax(z) - onehot(y), any real dtype.
        features_BH: (B, H) input of the last layer; append a column of ones for its bias.
        num: how many, >= 0.

    Returns:
        As `diverse` of the outer products, up to rounding in float64.

    Raises:
        ValueError: not two matrices of B rows, or `num` is negative.
    """
    _check_matrix("errors_BC", errors_BC)
    _check_matrix("features_BH", features_BH)
    if len(errors_BC) != len(features_BH):
        raise ValueError(f"errors_BC and features_BH must have B rows, got {len(errors_BC)} and {len(features_BH)}")
    check_count("num", num)
    finite_B = errors_BC.isfinite().all(dim=1) & features_BH.isfinite().all(dim=1)
    errors_BC, features_BH = _unit_scale(errors_BC, finite_B), _unit_scale(features_BH, finite_B)
    mean_CH = errors_BC.T @ features_BH / finite_B.sum().clamp(min=1)
    return _greedy(
        squares_B=errors_BC.square().sum(dim=1) * features_BH.square().sum(dim=1),
        with_mean_B=((errors_BC @ mean_CH) * features_BH).sum(dim=1),
        mean_square=mean_CH.square().sum(),
        products_with=lambda i: (errors_BC @ errors_BC[i]) * (features_BH @ features_BH[i]),
        finite_B=finite_B,
        num=num,
    )


def _greedy(
    squares_B: Tensor,
    with_mean_B: Tensor,
    mean_square: Tensor,
    products_with: Callable[[int], Tensor],
    finite_B: Tensor,
    num: int,
) -> Tensor:
    """The selection from inner products alone: <g, g>, <g, mean>, <mean, mean> and, for a chosen i, <g, g_i>.

    With unit vectors e_k of the chosen ones, parts_Bb[:, k] = <g, e_k> is a column of a pivoted Cholesky factorisation
    of the Gram matrix. Waits for the device at every choice.
    """
    num = min(num, int(finite_B.sum()))
    chosen: list[int] = []
    parts_Bb = squares_B.new_zeros(len(squares_B), num)
    left_B = finite_B.clone()
    with_residual_B = with_mean_B
    tie_B = _TIE * (squares_B * mean_square).sqrt()
    for k in range(num):
        candidates_B = with_residual_B.masked_fill(~left_B, -math.inf)
        # The earliest that ties with the largest, each give or take its rounding: argmax of equal values is the first.
        i = int((candidates_B + tie_B >= (candidates_B - tie_B).amax()).view(torch.uint8).argmax())
        chosen.append(i)
        left_B[i] = False
        orthogonal_B = products_with(i) - parts_Bb @ parts_Bb[i]
        square = orthogonal_B[i]
        if square > _DEPENDENT * squares_B[i]:
            parts_Bb[:, k] = orthogonal_B / square.sqrt()
            with_residual_B = with_residual_B - orthogonal_B * (with_residual_B[i] / square)
    return torch.tensor(chosen, dtype=torch.int64, device=finite_B.device)


def _unit_scale(rows_BD: Tensor, finite_B: Tensor) -> Tensor:
    """In float64 with 0 for rows that do not count, divided by the largest magnitude so that no square overflows."""
    rows_BD = torch.where(finite_B[:, None], rows_BD.double(), 0.0)
    if not rows_BD.numel():
        return rows_BD
    largest = rows_BD.abs().amax()
    return rows_BD / torch.where(largest > 0, largest, 1.0)


def _check_matrix(name: str, values: Tensor) -> None:
    if values.ndim != 2:
        raise ValueError(f"{name} must be a matrix, got shape {tuple(values.shape)}")
