"""Per-sample scores of one forward pass. B = batch, C = classes, D = features of the last layer.

Every score is computed in float32 (half precision ties the top two classes) and returned as (B,) float32. Finite logits
give finite scores. Where a logit that counts is not finite the score is not finite either, and `select` never takes it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGEST = torch.finfo(torch.float32).max


def minimal_margin_score(
    logits_BC: Tensor,
    weight_CD: Tensor,
    bias_C: Tensor | None = None,
    *,
    bias_in_norm: bool = False,
    nearest: bool = False,
) -> Tensor:
    """Distance from each sample's features to the boundary between its two top classes.

    (z_1 - z_2) / ||w_1 - w_2||, after Weinstein, Fine & Hel-Or 2019, arXiv:1911.06996. A head of a single logit has
    one boundary, z = 0, and the score is |z| / ||w||. Of equal second logits the earlier class counts, on every device.

    Two equal rows of the head have no boundary between them: the score is the largest float32, or 0 where their logits
    tie as well.

    Args:
        logits_BC: float; computed in eval mode, the bias included.
        weight_CD: weight of the last linear layer, from the same weights version as the logits.
        bias_C: its bias; only `bias_in_norm` looks at it, and takes None for zeros.
        bias_in_norm: measure in the space of the authors' code, whose constant feature puts the bias into the norm.
        nearest: the minimum over all classes j of (z_1 - z_j) / ||w_1 - w_j||, since the class of the second largest
            logit is not always the one with the nearest boundary. Needs (B, C) temporaries.

    Returns:
        (B,) float32, >= 0, in units of the feature space. Small is hard: select the lowest.

    Raises:
        ValueError: C < 1, or C differs between the arguments.
    """
    check_logits(logits_BC, least_classes=1)
    num_classes = logits_BC.shape[1]
    check_weight(weight_CD, logits_BC)
    if bias_C is not None and bias_C.shape != (num_classes,):
        raise ValueError(f"bias_C must be ({num_classes},) as logits_BC has C={num_classes}, got {_sh(bias_C)}")
    logits_BC, weight_CD = logits_BC.float(), weight_CD.float()
    if bias_in_norm and bias_C is not None:
        weight_CD = torch.cat([weight_CD, bias_C.float()[:, None]], dim=1)

    if num_classes == 1:
        return margin_distance(logits_BC[:, 0].abs(), torch.linalg.vector_norm(weight_CD[0]))
    if nearest:
        top_B1 = logits_BC.argmax(dim=1, keepdim=True)
        gaps_BC = logits_BC.gather(1, top_B1) - logits_BC
        # Differences first: the default by matrix product loses the distance of rows that are nearly equal.
        exact = "donot_use_mm_for_euclid_dist"
        norms_BC = torch.cdist(weight_CD[top_B1[:, 0]], weight_CD, compute_mode=exact)
        return margin_distance(gaps_BC, norms_BC).scatter(1, top_B1, math.inf).amin(dim=1)
    values_B2, classes_B2 = logits_BC.topk(2, dim=1)
    # topk leaves open which of equal values it returns; the first position of the second value does not. Where it
    # equals the first value the gap is 0, whatever the classes. The mask takes one byte per logit.
    second_B = (logits_BC == values_B2[:, 1:]).view(torch.uint8).argmax(dim=1)
    norms_B = torch.linalg.vector_norm(weight_CD[classes_B2[:, 0]] - weight_CD[second_B], dim=1)
    return margin_distance(values_B2[:, 0] - values_B2[:, 1], norms_B)


def cross_entropy_score(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
    """-log softmax(z)_y, in nats.

    Args:
        logits_BC: float; computed in eval mode.
        targets_B: integer class indices in [0, C). The CPU checks the range; CUDA stops with a device-side assertion.

    Returns:
        (B,) float32, >= 0. Large is hard: select the highest.

    Raises:
        ValueError: C < 2, or the targets are not B class indices.
    """
    check_logits(logits_BC, least_classes=2)
    check_targets(targets_B, logits_BC)
    # Not F.cross_entropy: it gives 0 to the target -100, which here is a mistake like any other negative one.
    return -F.log_softmax(logits_BC.float(), dim=1).gather(1, targets_B.long()[:, None])[:, 0]


def entropy_score(logits_BC: Tensor) -> Tensor:
    """-sum p log p of the predicted distribution, in nats. A class with logit -inf has p = 0 and adds nothing.

    Args:
        logits_BC: float; computed in eval mode.

    Returns:
        (B,) float32 in [0, ln C]. Large is hard: select the highest.

    Raises:
        ValueError: C < 2.
    """
    check_logits(logits_BC, least_classes=2)
    log_p_BC = F.log_softmax(logits_BC.float(), dim=1)
    return -(log_p_BC.exp() * log_p_BC.clamp(min=-_LARGEST)).sum(dim=1)  # 0 · -inf would be NaN


def gradient_norm_bound(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
    """||softmax(z) - onehot(y)||_2, after Katharopoulos & Fleuret 2018, arXiv:1803.00942.

    The norm of the cross-entropy's gradient with respect to the last bias; times ||features|| that of the last weight.

    Args:
        logits_BC: float; computed in eval mode.
        targets_B: integer class indices in [0, C), as in `cross_entropy_score`.

    Returns:
        (B,) float32 in [0, sqrt 2]. Large is hard: select the highest.

    Raises:
        ValueError: C < 2, or the targets are not B class indices.
    """
    check_logits(logits_BC, least_classes=2)
    check_targets(targets_B, logits_BC)
    # 1 - p_y is the sum of the others: the subtraction would round to 0 for confident samples.
    others_BC = F.softmax(logits_BC.float(), dim=1).scatter(1, targets_B.long()[:, None], 0.0)
    return (others_BC.square().sum(dim=1) + others_BC.sum(dim=1).square()).sqrt().clamp(max=math.sqrt(2))


def margin_distance(gaps: Tensor, norms: Tensor) -> Tensor:
    """gaps / norms with 0/0 = 0 and the largest float32 for an overflow; never 0 because a norm is not finite."""
    distances = torch.where(gaps == 0, gaps, (gaps / norms).clamp(max=_LARGEST))
    return torch.where(norms.isfinite(), torch.where(gaps.isfinite(), distances, gaps), math.nan)


def check_logits(logits_BC: Tensor, least_classes: int) -> None:
    """Raise ValueError unless these are (B, C) floats with at least so many classes."""
    if logits_BC.ndim != 2 or logits_BC.shape[1] < least_classes:
        raise ValueError(f"logits_BC must be (B, C) with C >= {least_classes}, got {_sh(logits_BC)}")
    if not logits_BC.is_floating_point():
        raise ValueError(f"logits_BC must be floating point, got {logits_BC.dtype}")


def check_weight(weight_CD: Tensor, logits_BC: Tensor) -> None:
    """Raise ValueError unless the head has a row for each logit."""
    num = logits_BC.shape[1]
    if weight_CD.ndim != 2 or weight_CD.shape[0] != num:
        raise ValueError(f"weight_CD must be ({num}, D) as logits_BC has C={num}, got {_sh(weight_CD)}")


def check_targets(targets_B: Tensor, logits_BC: Tensor) -> None:
    """Raise ValueError unless these are (B,) integers. Their range shows where they index."""
    integer = not (targets_B.is_floating_point() or targets_B.is_complex() or targets_B.dtype == torch.bool)
    if targets_B.shape != logits_BC.shape[:1] or not integer:
        expected = f"({logits_BC.shape[0]},) integer class indices"
        raise ValueError(f"targets_B must be {expected}, got {_sh(targets_B)} {targets_B.dtype}")


def _sh(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
