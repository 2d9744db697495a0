"""What benchmarks share: cores of their own for the processes, interleaved pairs, tables, a line about the machine."""

import contextlib
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.devices import pinned
from common.environment import describe_environment
from common.scheduling import TALKING_CORES


@dataclass(frozen=True)
class Cores:
    """One core for each side, so that they do not fight. None where the system does not pin or has one core only."""

    trainer: int | None
    scorer: int | None

    @classmethod
    def pick(cls) -> "Cores":
        """The first two cores that this process may use."""
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return cls(allowed[0], allowed[1]) if len(allowed) > 1 else cls(None, None)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The calling thread as `run` pins a trainer: on its core, and what talks to scorers on theirs."""
        before = os.environ.pop(TALKING_CORES, None)
        if self.scorer is not None:
            os.environ[TALKING_CORES] = str(self.scorer)
        try:
            with pinned(self.trainer):
                yield
        finally:
            os.environ.pop(TALKING_CORES, None)
            if before is not None:
                os.environ[TALKING_CORES] = before


@dataclass(frozen=True)
class Pairs:
    """Two quantities measured in turns; the ratio is taken within each pair, so that a machine's moods cancel."""

    first: list[float]
    second: list[float]

    @classmethod
    def measure(cls, num: int, first: Callable[[], float], second: Callable[[], float]) -> "Pairs":
        """Each called `num` times, in the order AB BA AB ... so that a drift favours neither."""
        pairs = cls([], [])
        for index in range(num):
            if index % 2 == 0:
                pairs.first.append(first())
                pairs.second.append(second())
            else:
                pairs.second.append(second())
                pairs.first.append(first())
        return pairs

    @property
    def ratios(self) -> list[float]:
        return [one / other for one, other in zip(self.first, self.second, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the ratios of the pairs."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> str:
        """Quartiles of the ratios, for the table."""
        low, _, high = statistics.quantiles(self.ratios, n=4) if len(self.ratios) > 1 else [self.ratio] * 3
        return f"{low:.3f} to {high:.3f}"


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Figures with their units, one to a line."""
    print(title)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    print(flush=True)


def machine() -> dict[str, Any]:
    """Hardware and versions, for the JSON line of a benchmark."""
    environment = describe_environment()
    return {
        "cpu": _cpu_name(),
        "cpu_count": environment["cpu_count"],
        "platform": environment["platform"],
        "versions": environment["versions"],
        "source": environment["source"],
        "started": environment["started"],
        "command": " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]]),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
