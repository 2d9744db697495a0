"""Fixtures of the tests of data."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def elsewhere() -> dict[str, Any]:
    """What a fresh process makes: see `tests.common.data.elsewhere`."""
    command = [sys.executable, "-W", "error", "-m", "tests.common.data.elsewhere"]
    made: dict[str, Any] = json.loads(subprocess.check_output(command, cwd=REPOSITORY, text=True, timeout=100))
    return made
