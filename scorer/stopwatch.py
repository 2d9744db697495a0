"""Where a scorer's time goes: every second belongs to one phase."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from common.protocol import Spent

Phase = Literal["read_s", "score_s", "load_s", "answer_s", "idle_s"]


class Stopwatch:
    """Seconds by phase since `begin`. The main thread switches phases, any thread may look.

    Attributes:
        mark: opened around each phase by its name, for a trace.
    """

    def __init__(self) -> None:
        self.mark: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext()
        self._lock = threading.Lock()
        self._phase: Phase = "idle_s"
        self.begin()

    def begin(self) -> None:
        """Count from now on, in whatever phase is running."""
        with self._lock:
            self._seconds: dict[Phase, float] = dict.fromkeys(Spent._fields, 0.0)  # type: ignore[arg-type]
            self._since = time.perf_counter()

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """The block's time is the phase's; before and after it is idle."""
        self._switch(phase)
        try:
            with self.mark(phase.removesuffix("_s")):
                yield
        finally:
            self._switch("idle_s")

    def _switch(self, phase: Phase) -> None:
        with self._lock:
            now = time.perf_counter()
            self._seconds[self._phase] += now - self._since
            self._phase, self._since = phase, now

    def move(self, source: Phase, target: Phase, seconds: float) -> None:
        """Part of what `source` took, now or before, was `target`'s."""
        with self._lock:
            self._seconds[source] -= seconds
            self._seconds[target] += seconds

    def spent(self) -> Spent:
        """So far, the phase that is running included."""
        with self._lock:
            seconds = {**self._seconds}
            seconds[self._phase] += time.perf_counter() - self._since
        return Spent(*(max(0.0, seconds[phase]) for phase in Spent._fields))  # type: ignore[index]
