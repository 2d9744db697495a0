"""Slow ground truth: loops in the papers' notation, in double precision, one sample at a time.

Arguments and results are tensors, as in the functions they stand beside; everything between is plain Python.
"""

import math

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float32).max


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


def distance(gap: float, length: float) -> float:
    """gap / length; between equal rows of the head 0 for tied logits, else the largest float32."""
    if not math.isfinite(gap):
        return gap
    if gap == 0:
        return 0.0
    return LARGEST if length == 0 else min(gap / length, LARGEST)


def minimal_margin_score(
    logits_BC: Tensor,
    weight_CD: Tensor,
    bias_C: Tensor | None = None,
    *,
    bias_in_norm: bool = False,
    nearest: bool = False,
) -> Tensor:
    """MMS = min over j of (z_n1 - z_j) / ||w_n1 - w_j||, over j = n2 alone unless `nearest`."""
    rows = [[*row] for row in weight_CD.tolist()]
    if bias_in_norm and bias_C is not None:
        rows = [[*row, b] for row, b in zip(rows, bias_C.tolist(), strict=True)]
    scores = []
    for z in logits_BC.tolist():
        if any(math.isnan(value) or value == math.inf for value in z):
            scores.append(math.nan)
        elif len(z) == 1:
            scores.append(distance(abs(z[0]), norm(rows[0])))
        else:
            n1, n2, *rest = sorted(range(len(z)), key=lambda j: -z[j])  # stable: of equal logits the earlier class
            others = [n2, *rest] if nearest else [n2]
            scores.append(
                min(
                    distance(z[n1] - z[j], norm([a - b for a, b in zip(rows[n1], rows[j], strict=True)]))
                    for j in others
                )
            )
    return torch.tensor(scores, dtype=torch.float32)


def softmax(z: list[float]) -> list[float]:
    if any(math.isnan(value) or value == math.inf for value in z) or max(z) == -math.inf:
        return [math.nan] * len(z)
    powers = [math.exp(value - max(z)) for value in z]
    return [power / sum(powers) for power in powers]


def cross_entropy_score(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
    """-log p_y."""
    scores = []
    for z, y in zip(logits_BC.tolist(), targets_B.tolist(), strict=True):
        if math.isnan(softmax(z)[y]):
            scores.append(math.nan)
        else:
            scores.append(max(z) + math.log(sum(math.exp(value - max(z)) for value in z)) - z[y])
    return torch.tensor(scores, dtype=torch.float32)


def entropy_score(logits_BC: Tensor) -> Tensor:
    """-sum_c p_c log p_c with 0 log 0 = 0."""
    scores = []
    for z in logits_BC.tolist():
        scores.append(sum(0.0 if p == 0 else -p * math.log(p) for p in softmax(z)))
    return torch.tensor(scores, dtype=torch.float32)


def gradient_norm_bound(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
    """||p - onehot(y)||_2."""
    scores = []
    for z, y in zip(logits_BC.tolist(), targets_B.tolist(), strict=True):
        scores.append(norm([p - (c == y) for c, p in enumerate(softmax(z))]))
    return torch.tensor(scores, dtype=torch.float32)


def lowest(scores_B: Tensor, num: int) -> Tensor:
    """num times: the first of the smallest finite scores that is still there."""
    left = {i: s for i, s in enumerate(scores_B.tolist()) if math.isfinite(s)}
    chosen: list[int] = []
    while left and len(chosen) < num:
        best = min(left, key=lambda i: (left[i], i))
        chosen.append(best)
        del left[best]
    return torch.tensor(chosen, dtype=torch.int64)


def highest(scores_B: Tensor, num: int) -> Tensor:
    return lowest(-scores_B, num)
