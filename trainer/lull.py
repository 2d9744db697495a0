"""When training does not need the interpreter: the time for other threads of its process to work.

    training     forward │ backward ........ optimiser, push, next batch │ forward │ backward ....
    lull                 └ begin                                     end ┘         └ begin
    feeder, I/O          ├ work                                          ┆ wait    ├ work

After each operation of a forward pass training takes the interpreter's lock back, and whoever works meanwhile holds it
up; a backward pass runs all but without. A loop that does not say when that begins is never waited for.
"""

import threading
import time

MOST_S = 0.02  # that anybody waits in one step: little of the longer ones


class Lull:
    """`begin` and `end` are the training thread's, and cost it microseconds; anybody else waits.

    Args:
        is_kept: False where nobody is to wait.

    Attributes:
        lasted_s: seconds of the shorter of the last two lulls, as an evaluation may make one long; 0 before the first.
    """

    def __init__(self, is_kept: bool = True) -> None:
        self._is_kept = is_kept
        self._is_on = threading.Event()
        self._is_on.set()
        self._began_at: float | None = None  # by time.monotonic; None: not in this step
        self._others_until = self._last_s = 0.0
        self.lasted_s = 0.0

    def begin(self) -> None:
        """A backward pass comes now."""
        if self._is_kept:
            self._began_at = time.monotonic()
            self._is_on.set()

    def end(self, waited_s: float = 0.0) -> None:
        """A forward pass comes now, if `begin` was called since the last time.

        Args:
            waited_s: that training stood still since then, which is not counted as the lull's length.
        """
        if self._began_at is None:
            return
        now = time.monotonic()
        last_s = now - self._began_at - waited_s
        self.lasted_s, self._last_s = min(last_s, self._last_s or last_s), last_s
        self._began_at, self._others_until = None, now + MOST_S
        self._is_on.clear()

    def release(self) -> None:
        """Training stands still, or nobody is to wait for another reason: not again in this step. Any thread."""
        self._is_on.set()

    def wait(self, work_s: float = 0.0) -> None:
        """Come back in a lull, or once this step's `MOST_S` are over; at once if work of that length exceeds a lull."""
        if self._is_on.is_set() or work_s > self.lasted_s:
            return
        if (left_s := self._others_until - time.monotonic()) > 0:
            self._is_on.wait(left_s)
