"""Log lines that a peer or a file can cause without end: at most one of a kind in some time, so that no disk fills."""

import collections
import logging
import time


class SparingLog:
    """Driven by one thread.

    Args:
        log: where the lines go.
        every_s: from one line of a kind to the next, at least.
    """

    def __init__(self, log: logging.Logger, every_s: float) -> None:
        self._log = log
        self._every_s = every_s
        self._next: dict[str, float] = {}
        self._left_out: collections.Counter[str] = collections.Counter()

    def say(self, kind: str, text: str, *, level: int = logging.WARNING, exc_info: bool = False) -> None:
        """A line, or one more of those that the next line of its kind counts. Kinds are few: each is remembered."""
        now = time.monotonic()
        if now < self._next.get(kind, now):
            self._left_out[kind] += 1
            return
        self._next[kind] = now + self._every_s
        left_out = self._left_out.pop(kind, 0)
        more = f" ({left_out} more like this were left out)" if left_out else ""
        self._log.log(level, "%s%s", text, more, exc_info=exc_info)
