"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest

from tests.preloaded import Preloaded


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    with Preloaded() as opened:
        yield opened
