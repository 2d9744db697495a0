"""The decision boundary in the plane, and the points selected last."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.data.source import Source, TensorSplit
from trainer.boundary import GRID, MAX_POINTS, write_boundary


def plane(num: int = 30) -> Source:
    """Points of [0, 2] x [-1, 1], labelled by the sign of the second feature."""
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(num, 2, generator=draw) * 2 - torch.tensor([0.0, 1.0])
    points[:2] = torch.tensor([[0.0, -1.0], [2.0, 1.0]])
    return Source("plane", TensorSplit(points, (points[:, 1] > 0).long()), None, 2)


class Horizon(nn.Module):
    """Class 1 above y = 0; the minimal margin of a point is |y|, whatever x is."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, -0.5], [0.0, 0.5]]))
            self.head.bias.zero_()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs)


def test_the_plane_is_coloured_by_class_and_margin_with_the_second_feature_upwards(tmp_path: Path) -> None:
    model, recent = Horizon(), [(7, np.array([3, 4])), (9, np.array([4, 11]))]
    assert write_boundary(tmp_path / "boundary.npz", model, model.head, plane(), recent, step=12, seed=0)
    drawn = np.load(tmp_path / "boundary.npz")
    assert (drawn["x"][0], drawn["x"][-1]) == pytest.approx((-0.1, 2.1))
    assert (drawn["y"][0], drawn["y"][-1]) == pytest.approx((-1.1, 1.1))
    assert drawn["predicted"].shape == drawn["margin"].shape == (GRID, GRID)
    assert np.array_equal(drawn["predicted"], np.broadcast_to(drawn["y"][:, None] > 0, (GRID, GRID)).astype(int))
    assert drawn["margin"] == pytest.approx(np.broadcast_to(np.abs(drawn["y"])[:, None], (GRID, GRID)), abs=1e-5)
    assert drawn["margin"].dtype == np.float32
    assert np.flatnonzero(drawn["selected"]).tolist() == [3, 4, 11]
    points, labels = plane().train.fetch(torch.arange(30))
    assert np.array_equal(drawn["points"], points.numpy())
    assert np.array_equal(drawn["labels"], labels.numpy())
    assert (drawn["step"].item(), drawn["selected_steps"].tolist()) == (12, [7, 9])


def test_of_many_points_some_are_shown_and_all_that_were_selected(tmp_path: Path) -> None:
    model, source, chosen = Horizon(), plane(MAX_POINTS + 5000), np.arange(0, 15_000, 30)
    assert write_boundary(tmp_path / "b.npz", model, model.head, source, [(1, chosen)], step=1, seed=0)
    drawn = np.load(tmp_path / "b.npz")
    assert drawn["selected"].sum() == len(chosen)
    assert MAX_POINTS <= len(drawn["points"]) <= MAX_POINTS + len(chosen)


def test_plain_training_has_a_boundary_and_no_selected_points(tmp_path: Path) -> None:
    model = Horizon()
    assert write_boundary(tmp_path / "b.npz", model, model.head, plane(), [], step=5, seed=0)
    drawn = np.load(tmp_path / "b.npz")
    assert not drawn["selected"].any()
    assert drawn["selected_steps"].tolist() == []


def test_samples_that_are_no_points_of_the_plane_have_no_boundary(tmp_path: Path) -> None:
    source = Source("line", TensorSplit(torch.zeros(4, 3), torch.zeros(4).long()), None, 2)
    pixels = Source("pixels", TensorSplit(torch.zeros(4, 2, dtype=torch.uint8), torch.zeros(4).long()), None, 2)
    for other in (source, pixels):
        head = nn.Linear(3, 2)
        assert not write_boundary(tmp_path / "b.npz", head, head, other, [], step=1, seed=0)
    assert list(tmp_path.iterdir()) == []
