"""Work that other threads hand to a thread that polls: a queue of calls, and a bell that ends its poll."""

import collections
import os
import sys
from collections.abc import Callable

RING = (1).to_bytes(8, sys.byteorder)  # what an eventfd takes; a pipe takes anything


class Bell:
    """Closed with its last reference. Who rings holds one, so that its number is nobody else's meanwhile."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.out = self.into = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.out, self.into = os.pipe()
            os.set_blocking(self.out, False)
            os.set_blocking(self.into, False)

    def __del__(self) -> None:
        if hasattr(self, "into"):  # else there was none to be had
            for number in {self.out, self.into}:
                os.close(number)


class Mailbox:
    """Tasks for the one thread that polls `wake_fd`; `post` from any thread, also a signal handler."""

    def __init__(self) -> None:
        self._tasks: collections.deque[Callable[[], object]] = collections.deque()
        self._bell: Bell | None = Bell()
        self.wake_fd = self._bell.out
        self._awake = False

    def __len__(self) -> int:
        return len(self._tasks)

    def post(self, task: Callable[[], object]) -> None:
        """Never blocks; nothing happens once the mailbox is closed. A push waits for it: every call counts."""
        self._tasks.append(task)
        if not self._awake and (bell := self._bell) is not None:
            self._awake = True  # a lost race costs one superfluous ring, never a lost wake-up: the flag falls first
            try:  # noqa: SIM105 - a context manager costs a push as much as all of this
                os.write(bell.into, RING)
            except BlockingIOError:
                pass  # a pipe full of rings

    def run(self, *, woken: bool) -> None:
        """Run what was posted, and what that posts. `woken`: `wake_fd` was readable."""
        if woken:
            os.read(self.wake_fd, 4096)
        self._awake = False
        while self._tasks:
            self._tasks.popleft()()

    def close(self) -> None:
        """By the thread that polls, which does so no more."""
        self._bell = None
