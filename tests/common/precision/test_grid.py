"""Bytes that stand for numbers."""

import pytest
import torch

from common.precision.grid import Grid


def covering(low: float, high: float) -> Grid:
    grid = Grid()
    grid.cover(low, high)
    return grid


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.1), (0.0, 5.0), (0.5, 5.0), (-4.0, -1.0), (0.0, 0.0)])
def test_bytes_are_within_half_a_level_and_zero_is_exact(low: float, high: float) -> None:
    grid = covering(low, high)
    x = torch.linspace(min(low, 0), max(high, 0), 1001)
    back = grid.dequantise(grid.quantise(x))
    assert (back - x).abs().max() <= grid.scale * 0.51
    assert grid.dequantise(grid.quantise(torch.zeros(1))).item() == 0


def test_values_beyond_the_range_are_clipped_to_its_ends() -> None:
    grid = covering(0, 2)
    assert grid.quantise(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pixels_get_the_same_bytes_side_by_side(channels: int) -> None:
    grid = covering(-2, 2)
    images = torch.randn(70, channels, 5, 3)
    pixels = grid.quantise_pixels(images)
    assert pixels.shape == (70, 4, 5, 3)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels[:, :channels], grid.quantise(images))
