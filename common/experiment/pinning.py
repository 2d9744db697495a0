"""Which cores the processes of a run get on a small machine, so that scorers take none of the trainer's time."""

import os
from dataclasses import dataclass

from common.config import RunOptions
from common.config.shared import SMALL_MACHINE_CORES
from common.experiment.devices import Layout

Cores = tuple[int, ...] | None  # numbers of cores; None: wherever the system likes


@dataclass(frozen=True)
class Pinning:
    """Cores by process; those of a scorer that computes on a GPU are None."""

    trainer: Cores = None
    scorers: tuple[Cores, ...] = ()  # of scorer-0, scorer-1, ...

    @property
    def words(self) -> str | None:
        """`pinned: trainer to core 0, scorer-0 to core 1`; None where nothing is."""
        if self.trainer is None:
            return None
        parts = [f"trainer to {_named(self.trainer)}"]
        parts += [f"scorer-{index} to {_named(cores)}" for index, cores in enumerate(self.scorers) if cores is not None]
        return f"pinned: {', '.join(parts)}"


def pin(options: RunOptions, layout: Layout, allowed: tuple[int, ...]) -> Pinning:
    """Cores of their own for the trainer and, where there are enough, for each scorer that computes on the CPU.

    A process gets as many as it has threads. Spare ones are the trainer's: it has a thread that reads and selects and
    one that talks to scorers. Where cores do not suffice, scorers share those that the trainer leaves. Nothing is
    pinned where no scorer computes on the CPU, on larger machines, and where nothing is left beside the trainer.

    Args:
        allowed: cores that this run may use.
    """
    nobody = Pinning(None, (None,) * len(layout.scorers))
    on_cpu = [index for index, device in enumerate(layout.scorers) if device == "cpu"]
    threads = options.num_threads
    if options.pin == "none" or not on_cpu or threads is None or len(allowed) > SMALL_MACHINE_CORES:
        return nobody
    own = 1 if layout.trainer != "cpu" else threads
    if own >= len(allowed):
        return nobody
    num_scoring = min(threads * len(on_cpu), len(allowed) - own)
    trainer, scoring = allowed[: len(allowed) - num_scoring], allowed[len(allowed) - num_scoring :]
    scorers: list[Cores] = [None] * len(layout.scorers)
    for place, index in enumerate(on_cpu):
        enough = len(scoring) == threads * len(on_cpu)
        scorers[index] = scoring[place * threads : (place + 1) * threads] if enough else scoring
    return Pinning(trainer, tuple(scorers))


def find_pinning(options: RunOptions, layout: Layout) -> Pinning:
    """The pinning on this machine; none where the system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return Pinning(None, (None,) * len(layout.scorers))
    return pin(options, layout, tuple(sorted(os.sched_getaffinity(0))))


def _named(cores: tuple[int, ...]) -> str:
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
