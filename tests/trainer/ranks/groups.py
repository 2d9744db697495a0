"""Groups of ranks that are threads of a test: what they say to each other goes from hand to hand."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trainer.ranks.group import Group

T = TypeVar("T")
R = TypeVar("R")
WITHIN_S = 20.0


@dataclass
class Table:
    """What all ranks of a group put down and read."""

    barrier: threading.Barrier
    values: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class ThreadGroup(Group):
    """One rank, on a thread of its own."""

    table: Table = field(default_factory=lambda: Table(threading.Barrier(1)))

    def gather(self, value: T) -> list[T]:
        self.table.values[self.rank] = value
        self.table.barrier.wait(WITHIN_S)
        values = list(self.table.values)
        self.table.barrier.wait(WITHIN_S)
        return values

    def share(self, value: T) -> T:
        return self.gather(value)[0]


def on_every_rank(size: int, do: Callable[[Group], R]) -> list[R | Exception]:
    """What `do` returned, or raised, by rank."""
    table = Table(threading.Barrier(size), [None] * size)
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = do(ThreadGroup(rank, size, table))
        except Exception as error:  # for the test to look at
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * WITHIN_S)
        assert not thread.is_alive(), "a rank waits for the others for ever"
    return results
