"""How much memory a process uses over time, as the kernel counts it."""

from pathlib import Path

import numpy as np

WINDOW_S = 600.0


def memory_mib(pid: int) -> tuple[float, float]:
    """(RSS, anonymous) of a process: all pages that it maps, and those that are no file's, such as its heaps."""
    sizes = {"Rss:": 0.0, "Anonymous:": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, *rest = line.split()
        if name in sizes:
            sizes[name] = int(rest[0]) / 1024
    return sizes["Rss:"], sizes["Anonymous:"]


def slope_per_10_min(times_s: list[float], sizes_mib: list[float], after_s: float) -> float:
    """MiB per 10 minutes: the straight line through what was measured after `after_s`, by least squares.

    Raises:
        ValueError: fewer than 10 measurements after that.
    """
    kept = np.array([(at, size) for at, size in zip(times_s, sizes_mib, strict=True) if at >= after_s])
    if len(kept) < 10:
        raise ValueError(f"{len(kept)} measurements after {after_s:.0f} s are too few for a slope; measure longer")
    return float(np.polyfit(kept[:, 0], kept[:, 1], 1)[0] * WINDOW_S)
