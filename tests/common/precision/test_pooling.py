"""Pooling of bytes against torch's pooling of the numbers they stand for."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.precision.grid import Grid
from common.precision.pooling import ImageMean, MaxPool
from common.precision.steps import ZeroPad


def bytes_like_images(channels: int, height: int, width: int) -> Tensor:
    x = torch.randint(0, 256, (3, channels, height, width), dtype=torch.uint8)
    return x.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def grid() -> Grid:
    grid = Grid()
    grid.cover(-1, 2)
    return grid


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 2), (1, 0))]
)
@pytest.mark.parametrize("size", [(8, 8), (11, 7)])
def test_max_pooling_of_bytes(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]
) -> None:
    x = bytes_like_images(5, *size)
    assert torch.equal(MaxPool(kernel, stride, padding)(x).float(), F.max_pool2d(x.float(), kernel, stride, padding))


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (20, 20)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_the_mean_of_images_of_bytes(grid: Grid, size: tuple[int, int], keepdim: bool) -> None:
    x = bytes_like_images(16, *size)
    expected = grid.dequantise(x.clone()).mean((2, 3), keepdim=keepdim)
    torch.testing.assert_close(ImageMean(grid, keepdim)(x), expected)


@pytest.mark.parametrize(
    ("channels", "pad"), [(16, (0, 0, 0, 0, 0, 16)), (16, (0, 0, 0, 0, 16, 32)), (8, (0, 0, 0, 0, 0, 8)), (16, (1, 2))]
)
@pytest.mark.parametrize("low", [0, -1])
def test_padding_with_what_stands_for_zero(channels: int, pad: tuple[int, ...], low: float) -> None:
    grid = Grid()
    grid.cover(low, 2)
    x = bytes_like_images(channels, 6, 6)[:, :, ::2, ::2]
    padded = ZeroPad(grid, pad)(x)
    torch.testing.assert_close(grid.dequantise(padded), F.pad(grid.dequantise(x), pad))
