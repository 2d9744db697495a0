"""A private folder, endpoints of both kinds, and a stack that closes what a test opens."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.processes import private_folder
from tests.common.transport.sides import TCP


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder with a short path."""
    with private_folder() as path:
        yield Path(path)


@pytest.fixture(params=["ipc", "tcp"])
def endpoint(request: pytest.FixtureRequest, folder: Path) -> str:
    return f"ipc://{folder}/t" if request.param == "ipc" else TCP


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack
