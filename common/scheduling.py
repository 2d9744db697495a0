"""How the kernel shares a core between the threads of a process. Linux only; elsewhere nothing happens."""

import contextlib
import os


def give_way() -> None:
    """Have the calling thread, when it wakes up, wait for the time slice of whoever computes on its core to end.

    An idle core takes it at once as before. A thread that was given another policy than the usual one keeps it.
    """
    if not hasattr(os, "sched_setscheduler"):
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it; then the thread is as eager as any
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
