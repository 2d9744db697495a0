"""A process that may open nothing more."""

import contextlib
import os
import resource
from collections.abc import Iterator

FEW = 16  # as many may be polled at a time; what is closed meanwhile has a higher number, and leaves no room


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Every new descriptor is refused to this process meanwhile; those that are open stay as they are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
