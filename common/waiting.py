"""Waits that end: each says for what, how long at most and what would end it; when that is over, who does what.

    wait = Wait("the feeder's thread to end", 30.0, "it reads data: does the disk answer?")
    if not joined(thread, wait):
        ...                                   # the log holds the words above and the stacks of all threads

`kill -USR1 PID` writes the stacks of a process at any time, also of one that hangs in native code.
"""

import faulthandler
import io
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

log = logging.getLogger(__name__)

MOST_FRAMES = 12  # of a stack, the innermost


class Wait:
    """One wait; it begins when this is made.

    Args:
        what: completes "waited 3 s for …".
        within_s: how long at most.
        remedy: what would end it.
    """

    def __init__(self, what: str, within_s: float, remedy: str = "") -> None:
        self.what = what
        self.within_s = within_s
        self.remedy = remedy
        self._began = time.monotonic()
        self._is_reported = False

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def is_over(self) -> bool:
        return self.waited_s >= self.within_s

    def left_s(self, at_most_s: float = float("inf")) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(0.0, min(at_most_s, self.within_s - self.waited_s))

    def words(self) -> str:
        """`waited 30 s for the feeder's thread to end; it reads data: does the disk answer?`"""
        return f"waited {self.waited_s:.3g} s for {self.what}" + (f"; {self.remedy}" if self.remedy else "")

    def report(self) -> str:
        """Have the log say that it was in vain and what every thread does; once. Returns the words."""
        words = self.words()
        if not self._is_reported:
            self._is_reported = True
            reported(words)
        return words


def joined(thread: threading.Thread, wait: Wait) -> bool:
    """Whether the thread has ended before the deadline; if not, that is reported."""
    thread.join(wait.left_s())
    if thread.is_alive():
        wait.report()
        return False
    return True


def reported(words: str) -> str:
    """Have the log say that something was waited for in vain, and what every thread does. Returns the words."""
    log.warning("%s\nwhat the threads do:\n%s", words, stacks())
    return words


def stacks() -> str:
    """A line for each thread, the innermost call first: `feeder: pool.py:174 wait < sourcing.py:151 prepare < …`."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = {ident: _calls(frame) for ident, frame in sys._current_frames().items()}
    lines = (f"  {names.get(ident, f'thread {ident}')}: {' < '.join(calls)}" for ident, calls in found.items())
    return "\n".join(sorted(lines))


def _calls(frame: FrameType | None) -> list[str]:
    calls: list[str] = []
    while frame is not None and len(calls) < MOST_FRAMES:
        calls.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return calls if frame is None else [*calls, "…"]


def stacks_on_signal() -> None:
    """From now on SIGUSR1 writes the stacks of all threads to stderr, also while the interpreter is held."""
    try:
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    except (AttributeError, ValueError, io.UnsupportedOperation):
        log.debug("no stacks on SIGUSR1: no such signal here, or stderr is no file")
