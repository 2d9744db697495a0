"""The decision boundary of samples in the plane and what was selected near its end: figure 1 of arXiv:1911.06996.

W, H = grid points along both features, n = samples shown.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.data.source import AbsentSplit, Source
from common.models import evaluating, gives_margins, unwrap
from common.order import Order
from common.selection.scores import minimal_margin_score
from common.whole_files import replacing

GRID = 200  # points along each feature
BORDER = 0.05  # of the data's extent, on each side
MAX_POINTS = 10_000
_AT_A_TIME = 8192


def write_boundary(
    path: Path,
    model: nn.Module,
    head: nn.Linear,
    source: Source,
    recent: Sequence[tuple[int, np.ndarray]],
    *,
    step: int,
    seed: int,
) -> bool:
    """Writes a .npz of the plane as the model sees it, and of training samples in it.

        x (W,), y (H,) float32 values of the first and the second feature; predicted (H, W) int64 classes; margin (H, W)
        float32 minimal margins; step () int64: steps that the model was trained for;
        points (n, 2) float32, labels (n,) int64, selected (n,) bool: trained in `recent`; all of those are among them;
        selected_steps (2,) int64: the first and the last of `recent`, empty if there are none.

    Args:
        head: the model's last linear layer.
        recent: step and ids of the last batches that were selected.
        seed: of the run; decides which points are shown where there are many.

    Returns:
        Whether it was written: not where samples are no pairs of numbers or the model gives no margins.
    """
    sample = source.sample
    if sample.shape != (2,) or not sample.dtype.is_floating_point or sample.target_shape != ():
        return False
    if isinstance(source.train, AbsentSplit) or not gives_margins(model, sample, head):
        return False
    chosen = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(ids for _, ids in recent)]))
    order = Order(sample.num_samples, seed, "boundary")
    shown = np.union1d(order.ids(np.arange(min(sample.num_samples, MAX_POINTS))), chosen)
    points, labels = source.train.fetch(torch.from_numpy(shown))
    x, y = (_axis(points[:, feature]) for feature in (0, 1))
    predicted, margin = _plane(model, head, source, x, y)
    steps = [recent[0][0], recent[-1][0]] if recent else []
    with replacing(path) as file:
        np.savez(
            file,
            x=x.numpy(),
            y=y.numpy(),
            predicted=predicted.numpy(),
            margin=margin.numpy(),
            points=points.float().numpy(),
            labels=labels.numpy(),
            selected=np.isin(shown, chosen),
            selected_steps=np.array(steps, dtype=np.int64),
            step=np.int64(step),
        )
    return True


def _axis(values: Tensor) -> Tensor:
    low, high = float(values.min()), float(values.max())
    border = BORDER * (high - low) or 1.0
    return torch.linspace(low - border, high + border, GRID)


def _plane(model: nn.Module, head: nn.Linear, source: Source, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(H, W) int64 classes and (H, W) float32 margins."""
    model, device = unwrap(model), next(model.parameters()).device
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = torch.stack([columns.flatten(), rows.flatten()], dim=1)
    predicted, margins = [], []
    with evaluating(model), torch.inference_mode():
        for part in grid.split(_AT_A_TIME):
            logits = model(source.prepare(part.to(device)))
            predicted.append(logits.argmax(dim=1).cpu())
            margins.append(minimal_margin_score(logits, head.weight, head.bias).cpu())
    return torch.cat(predicted).view_as(rows), torch.cat(margins).view_as(rows)
