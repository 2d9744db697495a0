"""Every score of one forward pass out of one walk over its logits, in tiles of rows.

`common.selection.scores` has each score by itself, as the papers write it; these are the same numbers but for rounding.
K = scores, B = candidates, C = classes, D = features of the last layer.
"""

import math
from collections.abc import Collection

import torch
from torch import Tensor

from common.selection.scores import check_logits, check_targets, check_weight, margin_distance

ROWS = ("mms", "entropy", "loss", "gradient-norm", "correct", "highest", "lowest")
_OF_SHARES = frozenset({"entropy", "loss", "gradient-norm"})  # of the softmax
NEED_TARGETS = frozenset({"loss", "gradient-norm", "correct"})
_NO_SHARE = -87.0  # e to this is nothing beside 1, and the last that exp computes on its fast path
# Elements of a tile: on a CPU it should stay in the cache of a core, on a GPU it should be worth a kernel's start.
_CPU_TILE, _GPU_TILE = 1 << 17, 1 << 24


def fused_scores(
    names: Collection[str], logits_BC: Tensor, *, weight_CD: Tensor | None = None, targets_B: Tensor | None = None
) -> dict[str, Tensor]:
    """The scores asked for, of all candidates. Waits for the device, once.

    Beside the result it takes two tiles of memory, however large B and C are. One row of logits may be more than a
    tile; then it is walked alone.

    Args:
        names: of ROWS. "mms", "entropy", "loss" (cross-entropy) and "gradient-norm" are scores; "correct" is 1 where
            the earliest of the largest logits is the target's, else 0; "highest" and "lowest" are the extremes of the
            logits, which show every NaN and infinity among them.
        logits_BC: float; computed in eval mode, C >= 2.
        weight_CD: weight of the last linear layer, for "mms"; from the same weights version as the logits.
        targets_B: integer class indices in [0, C), for "loss", "gradient-norm" and "correct".

    Returns:
        (B,) float32 by name, on the CPU. Non-finite where a logit that counts is not finite; finite logits give finite
        scores.

    Raises:
        ValueError: an unknown name, shapes that do not fit, or an argument that a name needs is missing.
    """
    if unknown := [name for name in names if name not in ROWS]:
        raise ValueError(f"unknown score {unknown[0]!r}; available: {', '.join(ROWS)}")
    check_logits(logits_BC, least_classes=2)
    if "mms" not in names:
        weight_CD = None
    elif weight_CD is None:
        raise ValueError("the minimal margin score needs weight_CD, got None")
    else:
        check_weight(weight_CD, logits_BC)
    if needing := NEED_TARGETS.intersection(names):
        if targets_B is None:
            raise ValueError(f"{', '.join(sorted(needing))} needs targets_B, got None")
        check_targets(targets_B, logits_BC)
    width = max(logits_BC.shape[1], 0 if weight_CD is None else weight_CD.shape[1])
    num_rows = max(1, (_CPU_TILE if logits_BC.device.type == "cpu" else _GPU_TILE) // width)
    targets_B1 = None if targets_B is None or not needing else targets_B.long()[:, None]
    tiles = []
    for start in range(0, max(1, len(logits_BC)), num_rows):
        part = slice(start, start + num_rows)
        targets = None if targets_B1 is None else targets_B1[part]
        tiles.append(_reductions(logits_BC[part], weight_CD, targets, names))
    reduced = {
        name: torch.cat([tile[name] for tile in tiles]) if len(tiles) > 1 else tiles[0][name] for name in tiles[0]
    }
    on_cpu = dict(zip(reduced, torch.stack(list(reduced.values())).cpu(), strict=True))
    rows = _finish(on_cpu)
    return {name: rows[name] for name in names}


def _reductions(
    logits_BC: Tensor, weight_CD: Tensor | None, targets_B1: Tensor | None, names: Collection[str]
) -> dict[str, Tensor]:
    """(B,) float32 sums over the classes of one tile. The largest logit is set apart: the rest would round away.

    No more than the names need: each operation takes a small model's scorer as long as a hundred rows do.
    """
    others_BC = logits_BC.to(torch.float32, copy=True)
    high_B1, top_B1 = others_BC.max(dim=1, keepdim=True)  # the first of equal ones, on every device
    rows = {"highest": high_B1[:, 0], "lowest": others_BC.amin(dim=1)}
    shares = not _OF_SHARES.isdisjoint(names)
    if targets_B1 is not None:
        rows["correct"] = (top_B1 == targets_B1)[:, 0].to(torch.float32)
        if shares:
            rows["of target"] = others_BC.gather(1, targets_B1)[:, 0]
    if weight_CD is None and not shares:
        return rows
    others_BC.scatter_(1, top_B1, -math.inf)
    if weight_CD is not None:
        second_B1: Tensor
        next_B1, second_B1 = others_BC.max(dim=1, keepdim=True)
        normals_BD = (
            weight_CD.index_select(0, top_B1[:, 0]).float() - weight_CD.index_select(0, second_B1[:, 0]).float()
        )
        rows["second"] = next_B1[:, 0]
        rows["norm of normal"] = torch.linalg.vector_norm(normals_BD, dim=1)
    if not shares:
        return rows
    others_BC.sub_(high_B1).clamp_(min=_NO_SHARE)  # 0 · -inf would be NaN in the entropy
    exp_BC = others_BC.exp()  # nothing in the place of the largest, which stands for 1
    rows["sum of exp"] = exp_BC.sum(dim=1)
    if "gradient-norm" in names:
        rows["norm of exp"] = torch.linalg.vector_norm(exp_BC, dim=1)
    if "entropy" in names:
        rows["sum of products"] = others_BC.mul_(exp_BC).sum(dim=1)
    return rows


def _finish(reduced: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores from sums over the classes, (B,) each, on the CPU: so little that a GPU's kernels would only wait."""
    rows: dict[str, Tensor] = {name: reduced[name] for name in ("highest", "lowest", "correct") if name in reduced}
    if "norm of normal" in reduced:
        rows["mms"] = margin_distance(reduced["highest"] - reduced["second"], reduced["norm of normal"])
    if "sum of exp" not in reduced:
        return rows
    sum_B = reduced["sum of exp"]
    total_B, log_total_B = 1 + sum_B, sum_B.log1p()
    if "sum of products" in reduced:
        rows["entropy"] = log_total_B - reduced["sum of products"] / total_B
    if "of target" in reduced:
        below_B = reduced["of target"] - reduced["highest"]
        rows["loss"] = log_total_B - below_B
    if "norm of exp" in reduced:
        # ||softmax - onehot||: the target's share is what it leaves to the others. Where it is not the largest, its
        # part is subtracted from sums that hold a 1: no cancellation.
        hit_B, of_target_B, norm_B = reduced["correct"] == 1, below_B.exp(), reduced["norm of exp"]
        mass_B = torch.where(hit_B, sum_B, total_B - of_target_B)
        rest_B = torch.where(hit_B, norm_B, (1 + norm_B.square() - of_target_B.square()).sqrt())
        rows["gradient-norm"] = (torch.hypot(mass_B, rest_B) / total_B).clamp(max=math.sqrt(2))
    return rows
