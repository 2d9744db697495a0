"""A long piece of work done in portions, so that nobody has to wait for all of it."""

import time
from collections.abc import Callable

PORTION_S = 0.002  # between two of them


class Portions:
    """Of one thread, which calls `go_on` whenever it comes round."""

    def __init__(self) -> None:
        self._portion: Callable[[], bool] | None = None
        self._next_at = 0.0

    def begin(self, portion: Callable[[], bool]) -> None:
        """Do one now, and one every few milliseconds until it returns False; replaces what was being done before."""
        self._portion, self._next_at = portion, 0.0
        self.go_on(time.monotonic())

    def go_on(self, now: float) -> None:
        """Do the next one if it is due."""
        if self._portion is not None and now >= self._next_at:
            self._next_at = now + PORTION_S
            if not self._portion():
                self._portion = None

    def within(self, timeout_s: float) -> float:
        """How long to wait for other things at the most."""
        return timeout_s if self._portion is None else min(timeout_s, PORTION_S)
