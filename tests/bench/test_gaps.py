"""Idle time is what no kernel covers."""

import pytest
import torch

from tests.bench.gaps import idle_fraction, idle_share


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([(0, 10)], 0.0),
        ([(5, 10), (10, 15)], 0.0),
        ([(5, 10), (15, 25)], 0.25),
        ([(20, 30), (0, 10)], 1 / 3),
        ([(0, 20), (2, 4), (25, 30), (26, 50)], 0.1),
    ],
)
def test_idle_is_what_no_span_covers_however_they_overlap(spans: list[tuple[float, float]], share: float) -> None:
    assert idle_share(spans) == pytest.approx(share)


@pytest.mark.gpu
def test_a_host_that_launches_late_leaves_the_gpu_idle_and_one_that_launches_ahead_does_not() -> None:
    def launch(is_late: bool) -> None:
        for _ in range(10):
            torch.cuda._sleep(5_000_000)
            if is_late:
                torch.cuda.synchronize()
                sum(range(200_000))  # milliseconds of Python

    for is_late in (True, False):
        launch(is_late)
    late, ahead = (idle_fraction(lambda is_late=is_late: launch(is_late)) for is_late in (True, False))
    assert ahead < 0.05 < 0.2 < late
