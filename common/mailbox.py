"""Work that other threads hand to a thread that polls: a queue of calls, and a pipe that ends its poll."""

import collections
import os
from collections.abc import Callable


class Pipe:
    """Closed when nobody holds it any more, not even who is just writing: its numbers are nobody else's before."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        os.set_blocking(self.out, False)
        os.set_blocking(self.into, False)

    def __del__(self) -> None:
        if hasattr(self, "into"):  # else there was none to be had
            os.close(self.out)
            os.close(self.into)


class Mailbox:
    """Tasks for the one thread that polls `wake_fd`; `post` from any thread, also a signal handler."""

    def __init__(self) -> None:
        self._tasks: collections.deque[Callable[[], object]] = collections.deque()
        self._pipe: Pipe | None = Pipe()
        self.wake_fd = self._pipe.out
        self._awake = False

    def __len__(self) -> int:
        return len(self._tasks)

    def post(self, task: Callable[[], object]) -> None:
        """Never blocks; nothing happens once the mailbox is closed. A push waits for it: every call counts."""
        self._tasks.append(task)
        if not self._awake and (pipe := self._pipe) is not None:
            self._awake = True  # a lost race costs one superfluous byte, never a lost wake-up: the flag falls first
            try:  # noqa: SIM105 - a context manager costs a push as much as all of this
                os.write(pipe.into, b"\0")
            except BlockingIOError:
                pass  # full of wake-ups already

    def run(self, *, woken: bool) -> None:
        """Run what was posted, and what that posts. `woken`: `wake_fd` was readable."""
        if woken and (pipe := self._pipe) is not None:
            os.read(pipe.out, 4096)
        self._awake = False
        while self._tasks:
            self._tasks.popleft()()

    def close(self) -> None:
        """By the thread that polls, which does so no more."""
        self._pipe = None
