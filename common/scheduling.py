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


@contextlib.contextmanager
def talking_cores() -> Iterator[None]:
    """Threads started inside may use the cores that `TALKING_CORES` names too, beside those of the calling thread.

    `run` names the scorers' cores there when it pins a trainer to its own: what talks to scorers then takes less of the
    core that trains.
    """
    named = os.environ.get(TALKING_CORES)
    if not named or not hasattr(os, "sched_setaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    with contextlib.suppress(OSError, ValueError):  # no such cores here: they stay where they are
        os.sched_setaffinity(0, own | {int(core) for core in named.split(",")})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
