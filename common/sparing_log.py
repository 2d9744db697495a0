"""Log lines that a peer or a file can cause without end: a few of a kind in some time, so that no disk fills."""

import collections
import logging
import time


class SparingLog:
    """Driven by one thread.

    Args:
        log: where the lines go.
        every_s: in which so many lines of a kind are written, at most.
        at_once: how many.
    """

    def __init__(self, log: logging.Logger, every_s: float, at_once: int = 1) -> None:
        self._log = log
        self._every_s = every_s
        self._at_once = at_once
        self._said: collections.Counter[str] = collections.Counter()
        self._next: dict[str, float] = {}
        self._left_out: collections.Counter[str] = collections.Counter()

    def say(self, kind: str, text: str, *, level: int = logging.WARNING, exc_info: bool = False) -> None:
        """A line, or one more of those that the next line of its kind counts. Kinds are few: each is remembered."""
        now = time.monotonic()
        if now >= self._next.get(kind, now):
            self._next[kind], self._said[kind] = now + self._every_s, 0
        elif self._said[kind] >= self._at_once:
            self._left_out[kind] += 1
            return
        self._said[kind] += 1
        left_out = self._left_out.pop(kind, 0)
        more = f" ({left_out} more like this were left out)" if left_out else ""
        self._log.log(level, "%s%s", text, more, exc_info=exc_info)
