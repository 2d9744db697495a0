"""What one forward pass says about candidates, and about each of several chunks of them. B = candidates."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EXTREMES = ("highest", "lowest")  # of the logits: they show every NaN and infinity without a (B, C) mask


@dataclass(frozen=True)
class Scored:
    """What one forward pass says about a batch of candidates.

    Attributes:
        scores: name to (B,) float32 on the CPU; NaN exactly where `dropped`.
        dropped: (B,) bool on the CPU: a logit or a wanted score was not finite. Never selected.
        loss_mean: of the candidates whose loss is finite and that were not dropped; NaN without any. Candidates are
            uniform, so this is an unbiased estimate of the loss over the data.
        accuracy: of the candidates not dropped, in [0, 1]; NaN without any, or where targets are not class indices.
        tau: `variance_reduction_tau` of the gradient-norm bounds of the candidates not dropped; NaN where there is no
            such bound. All three are NaN where nobody asked for them.
        num: B.
        errors, features: (B, C) softmax - onehot and (B, D) inputs of the head, float16 on the CPU, if asked for.
    """

    scores: dict[str, Tensor]
    dropped: Tensor
    loss_mean: float
    accuracy: float
    tau: float
    num: int
    errors: Tensor | None = None
    features: Tensor | None = None


def scored_parts(
    names: Sequence[str],
    rows: dict[str, np.ndarray],
    sizes: Sequence[int],
    errors: Tensor | None = None,
    features: Tensor | None = None,
) -> list[Scored]:
    """What is said of each part for itself.

    Args:
        names: the scores wanted.
        rows: (B,) float32 by name: these scores, EXTREMES and, where they are wanted, "loss", "correct" and
            "gradient-norm"; NaN where unknown.
        sizes: candidates of each part, one part after the other; B together.
        errors, features: see `Scored`.
    """
    if len(sizes) == 1:
        return [_scored(names, rows, errors, features)]
    parts = []
    for size, stop in zip(sizes, itertools.accumulate(sizes), strict=True):
        part = slice(stop - size, stop)
        own = {name: row_B[part] for name, row_B in rows.items()}
        factors = (None if factor is None else factor[part] for factor in (errors, features))
        parts.append(_scored(names, own, *factors))
    return parts


def _scored(
    names: Sequence[str], rows: dict[str, np.ndarray], errors: Tensor | None, features: Tensor | None
) -> Scored:
    """Candidates with a number that is not finite are dropped."""
    highest, lowest = EXTREMES
    kept_B = np.isfinite(rows[highest]) & np.isfinite(rows[lowest])
    for name in names:
        kept_B &= np.isfinite(rows[name])
    own = rows
    if not kept_B.all():
        rows = {name: row_B[kept_B] for name, row_B in own.items()}
        own = {name: np.where(kept_B, own[name], np.float32(math.nan)) for name in names}
    return Scored(
        scores={name: torch.from_numpy(own[name]) for name in names},
        dropped=torch.from_numpy(~kept_B),
        loss_mean=_mean_finite(rows["loss"]) if "loss" in rows else math.nan,
        accuracy=_mean(rows["correct"]) if "correct" in rows else math.nan,
        tau=_tau(rows["gradient-norm"]) if "gradient-norm" in rows else math.nan,
        num=len(kept_B),
        errors=errors,
        features=features,
    )


def _mean_finite(values: np.ndarray) -> float:
    are_finite = np.isfinite(values)
    return _mean(values if are_finite.all() else values[are_finite])


def _mean(values: np.ndarray) -> float:
    return float(np.add.reduce(values, dtype=np.float64)) / len(values) if len(values) else math.nan


def _tau(bounds_B: np.ndarray) -> float:
    """`selection.select.variance_reduction_tau` of bounds, which cannot overflow; NaN where one is not finite."""
    if not len(bounds_B) or not np.isfinite(bounds_B).all():
        return math.nan
    bounds_B = bounds_B.astype(np.float64)
    total, num = float(bounds_B.sum()), len(bounds_B)
    return min(max(math.sqrt(num * float(bounds_B @ bounds_B)) / total, 1.0), math.sqrt(num)) if total else 1.0
