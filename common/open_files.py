"""How many files a process may have open: each scorer costs a trainer two, each rank costs a scorer some."""

import contextlib
import sys

MOST = 1 << 16  # what walks through all descriptors stays quick


def allow_many_open_files() -> None:
    """Raise the soft limit, 1,024 on most systems, towards the hard one; nothing where there is no such limit."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a system with a lower bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
