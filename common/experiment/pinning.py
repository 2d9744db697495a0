"""Which cores the processes of a run get on a small machine, so that scorers take none of the trainer's time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from common.config import RunOptions
from common.config.shared import SMALL_MACHINE_CORES
from common.experiment.devices import Layout, trainer_names

Cores = tuple[int, ...] | None  # numbers of cores; None: wherever the system likes


@dataclass(frozen=True)
class Pinning:
    """Cores by process; those of a scorer that computes on a GPU are None.

    Attributes:
        talking: by rank, for threads of a trainer that talk to scorers, instead of its own cores; empty: those.
    """

    trainers: tuple[Cores, ...] = (None,)  # by rank
    scorers: tuple[Cores, ...] = ()  # of scorer-0, scorer-1, ...
    talking: tuple[tuple[int, ...], ...] = ((),)

    @property
    def words(self) -> str | None:
        """`pinned: trainer to core 0, scorer-0 to core 1`; None where nothing is."""
        names = (*trainer_names(len(self.trainers)), *(f"scorer-{index}" for index in range(len(self.scorers))))
        given = zip(names, (*self.trainers, *self.scorers), strict=True)
        parts = [f"{name} to {_named(cores)}" for name, cores in given if cores is not None]
        return f"pinned: {', '.join(parts)}" if parts else None


def unpinned(layout: Layout) -> Pinning:
    """Everybody wherever the system likes."""
    num = len(layout.trainers)
    return Pinning((None,) * num, (None,) * len(layout.scorers), ((),) * num)


def pin(options: RunOptions, layout: Layout, allowed: tuple[int, ...]) -> Pinning:
    """Cores of their own for trainers and, where there are enough, for each scorer that computes on the CPU.

    A process gets as many as it has threads, on a GPU one. Spare ones are rank 0's: a trainer has a thread that reads
    and selects and some that talk to scorers. Without spare ones those talk on the scorers' cores. Where cores do not
    suffice, scorers share those that trainers leave.
    Nothing is pinned where no scorer computes on the CPU, on larger machines, and where nothing is left for scorers.

    Args:
        allowed: cores that this run may use.
    """
    on_cpu = [index for index, device in enumerate(layout.scorers) if device == "cpu"]
    threads = options.num_threads
    if options.pin == "none" or not on_cpu or threads is None or len(allowed) > SMALL_MACHINE_CORES:
        return unpinned(layout)
    needed = [threads if device == "cpu" else 1 for device in layout.trainers]
    if sum(needed) >= len(allowed):
        return unpinned(layout)
    num_scoring = min(threads * len(on_cpu), len(allowed) - sum(needed))
    training, scoring = allowed[: len(allowed) - num_scoring], allowed[len(allowed) - num_scoring :]
    scorers: list[Cores] = [None] * len(layout.scorers)
    for place, index in enumerate(on_cpu):
        enough = len(scoring) == threads * len(on_cpu)
        scorers[index] = scoring[place * threads : (place + 1) * threads] if enough else scoring
    trainers = _shared_out(training, needed)
    talking = tuple(scoring if len(own) <= num else () for own, num in zip(trainers, needed, strict=True))
    return Pinning(trainers, tuple(scorers), talking)


def find_pinning(options: RunOptions, layout: Layout) -> Pinning:
    """The pinning on this machine; none where the system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return unpinned(layout)
    return pin(options, layout, tuple(sorted(os.sched_getaffinity(0))))


def _shared_out(cores: tuple[int, ...], needed: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """As many for each as it needs, and what is to spare for the first one."""
    ends = list(accumulate(needed, initial=len(cores) - sum(needed)))
    return tuple(cores[ends[rank] if rank else 0 : ends[rank + 1]] for rank in range(len(needed)))


def _named(cores: tuple[int, ...]) -> str:
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
