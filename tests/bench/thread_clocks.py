"""What single threads of this process use: the I/O thread, and ZeroMQ's own, which copy and encrypt."""

import contextlib
import threading
import time
from pathlib import Path

TASKS = Path("/proc/self/task")


def thread_cpu_s(thread: threading.Thread) -> float:
    """Seconds of a core that a living thread used, Python and system."""
    assert thread.ident is not None, "a thread that was not started"
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def zmq_threads() -> set[int]:
    """ZeroMQ's threads of this process that move bytes, all contexts together; none where there is no /proc."""
    found = set()
    for task in TASKS.iterdir() if TASKS.is_dir() else ():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (task / "comm").read_text().startswith("ZMQbg/IO"):
                found.add(int(task.name))
    return found


def tasks_cpu_s(tasks: set[int]) -> float:
    """Seconds of a core that these threads used together; those that have ended count nothing."""
    total = 0.0
    for task in tasks:
        with contextlib.suppress(OSError):
            total += int((TASKS / str(task) / "schedstat").read_text().split()[0]) / 1e9
    return total
