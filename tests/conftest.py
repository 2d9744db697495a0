"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest
import torch

from tests.preloaded import Preloaded


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small operations on two threads take twenty times as long where another process wants one of the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    with Preloaded() as opened:
        yield opened
