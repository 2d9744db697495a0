"""Work that other threads hand to a thread that polls: a queue of calls, and a pipe that ends its poll."""

import collections
import io
import os
import threading
from collections.abc import Callable


class Mailbox:
    """Tasks for the one thread that polls `wake_fd`; `post` from any thread."""

    def __init__(self) -> None:
        self._tasks: collections.deque[Callable[[], object]] = collections.deque()
        self.wake_fd, wake_in = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(wake_in, False)
        self._out = io.FileIO(self.wake_fd, "r")
        self._in = io.FileIO(wake_in, "w")
        self._awake = False
        # A byte must not go to whoever has the number of the pipe next. Re-entrant: a signal handler may post while the
        # thread that it interrupts does.
        self._closing = threading.RLock()

    def __len__(self) -> int:
        return len(self._tasks)

    def post(self, task: Callable[[], object]) -> None:
        """Never blocks; nothing happens once the mailbox is closed."""
        self._tasks.append(task)
        if not self._awake:  # `wake` asks too: a call less costs a push microseconds less
            self.wake()

    def wake(self) -> None:
        if not self._awake:  # a lost race costs one superfluous byte, never a lost wake-up: the flag falls first
            self._awake = True
            try:
                with self._closing:
                    self._in.write(b"\0")  # or not, where the pipe is full of wake-ups already
            except (ValueError, BrokenPipeError):
                pass  # closed

    def run(self, *, woken: bool) -> None:
        """Run what was posted, and what that posts. `woken`: `wake_fd` was readable."""
        if woken:
            self._out.read(4096)
        self._awake = False
        while self._tasks:
            self._tasks.popleft()()

    def close(self) -> None:
        with self._closing:
            self._in.close()
            self._out.close()
