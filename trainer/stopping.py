"""Ctrl-C, SIGTERM and SIGHUP: the first ends a run in order and in time, the second at once."""

import signal
import time
from collections.abc import Callable
from types import FrameType

from common.processes import SAME_SIGNAL_S

EVALUATION_S = 10.0  # what an evaluation may take of the time in which a stopped run ends


class Stopping:
    """Installs handlers of these signals; under nohup SIGHUP stays ignored.

    Args:
        stop: called with the first one, on the main thread.

    Attributes:
        received: the first signal; None before it comes.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._received_at = 0.0
        self.received: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:
                signal.signal(number, self._on_signal)

    def is_late(self) -> bool:
        """Whether whoever asked the run to end should no longer be kept waiting for figures."""
        return self.received is not None and time.monotonic() - self._received_at > EVALUATION_S

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = signal.Signals(number), now
            self._stop()
        elif now - self._received_at >= SAME_SIGNAL_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
