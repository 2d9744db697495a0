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


SLOW_TIMEOUT_S = 900  # on a machine where other things go on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
