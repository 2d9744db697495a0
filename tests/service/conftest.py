"""Fixtures of the tests with real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.preloaded import Preloaded
from tests.service.processes import Processes


@pytest.fixture
def processes(tmp_path: Path, preloaded: Preloaded) -> Iterator[Processes]:
    with Processes(tmp_path, preloaded) as started:
        yield started
