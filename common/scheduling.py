"""How the kernel shares cores between the threads of a process. Linux only; elsewhere nothing happens."""

import contextlib
import os
from collections.abc import Iterator

TALKING_CORES = "MARGINSTREAM_TALKING_CORES"  # environment: numbers separated by commas


def give_way() -> None:
    """Have the calling thread, when it wakes up, wait for the time slice of whoever computes on its core to end.

    An idle core takes it at once as before. A thread that was given another policy than the usual one keeps it.
    """
    if not hasattr(os, "sched_setscheduler"):
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it; then the thread is as eager as any
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Elsewhere:
    """Sends one thread to the cores that `TALKING_CORES` names, and back to its own. Made and called on that thread.

    Threads that it starts while it is there stay there.

    `run` names the scorers' cores there when it pins a trainer to its own: what talks to scorers, and what selects
    where that is little, then takes nothing of the core that trains.
    """

    def __init__(self) -> None:
        self._own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self._named: set[int] = set()
        self._is_away = False
        with contextlib.suppress(ValueError):  # not numbers
            self._named = {int(core) for core in os.environ.get(TALKING_CORES, "").split(",")}

    def go(self, wanted: bool) -> None:
        """Go there or, if that is not wanted, come back; nothing where no cores are named."""
        if not self._own or not self._named or wanted == self._is_away:
            return
        try:
            os.sched_setaffinity(0, self._named if wanted else self._own)
        except (OSError, ValueError, OverflowError):  # no such cores here: it stays where it is
            self._named = set()
        else:
            self._is_away = wanted


@contextlib.contextmanager
def talking_cores() -> Iterator[None]:
    """Threads started inside run on the cores that `TALKING_CORES` names instead of those of the calling thread."""
    elsewhere = Elsewhere()
    elsewhere.go(True)
    try:
        yield
    finally:
        elsewhere.go(False)
