"""How the soak measures memory."""

import mmap
import os

import pytest

from tests.soak.memory import memory_mib, slope_per_10_min


def test_memory_that_a_process_takes_is_seen() -> None:
    before, _ = memory_mib(os.getpid())
    # of the system: an allocator may have kept as much of what was freed before
    with mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken.write(bytes(32 << 20))
        after, anonymous = memory_mib(os.getpid())
    assert 25 < after - before < 80
    assert 25 < anonymous <= after


def test_a_slope_counts_what_comes_after_the_first_minutes() -> None:
    times = [float(second) for second in range(0, 1800, 10)]
    sizes = [500.0 + min(second, 300.0) + 2.5 * second / 600 for second in times]
    assert slope_per_10_min(times, sizes, 300) == pytest.approx(2.5)


def test_a_slope_of_a_moment_is_no_slope() -> None:
    with pytest.raises(ValueError, match="3 measurements after 60 s are too few"):
        slope_per_10_min([0.0, 60.0, 70.0, 80.0], [1.0] * 4, 60)
