"""A place for a run with processes of the test's own, and a clock."""

from pathlib import Path

import pytest

from tests.common.experiment.progresses import Clock
from tests.common.experiment.workplace import LEAVES_WITH_TRAINER, Make, Workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Make:
    def make(trainer: str, scorer: str = LEAVES_WITH_TRAINER) -> Workplace:
        return Workplace(tmp_path, trainer, scorer)

    return make


@pytest.fixture
def clock() -> Clock:
    return Clock()
