"""What the tests of the scorer share."""

import pytest

from scorer import stopwatch
from tests.scorer.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopwatch, "time", made)
    return made
