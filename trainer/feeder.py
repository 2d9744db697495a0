"""A thread that has the next batch ready before the current step ends."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

POLL_S = 0.2


class Stopped(Exception):
    """Raised inside `prepare` when the run ends."""


class Feeder(Generic[T]):
    """Calls `prepare(step)` for one step after the other, some steps ahead of whoever calls `get`.

    Args:
        prepare: runs on the feeder's thread; may wait, looking at `is_awaited` and `stopping`.
        start_step, stop_step: the steps to prepare.
        ahead: the most batches that are ready and not asked for yet.
        wake: called, on the training thread, when it starts to wait: prepare may give up waiting for better.
    """

    def __init__(
        self,
        prepare: Callable[[int], T],
        start_step: int,
        stop_step: int,
        *,
        ahead: int = 1,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._prepare = prepare
        self._steps = range(start_step, stop_step)
        self._ahead = ahead
        self._wake = wake
        self._changed = threading.Condition()
        self._ready: dict[int, T] = {}
        self._error: BaseException | None = None
        self.is_awaited = False  # the training thread stands still
        self.stopping = False
        self.waited_s = 0.0
        self.waited_until = 0.0  # end of the last wait, by time.perf_counter
        self.busy_s = 0.0  # that its thread computed, waits left out
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self.stopping = True
            self._changed.notify_all()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=30.0)

    def get(self, step: int, while_waiting: Callable[[float], None] = lambda waited_s: None) -> T:
        """The prepared batch of a step. The training thread's only wait; its length is added to `waited_s`.

        Args:
            while_waiting: called now and then with the seconds waited; may raise to end the wait.
        """
        with self._changed:
            if step in self._ready:
                self._changed.notify_all()
                return self._ready.pop(step)
            self.is_awaited = True
        started = time.perf_counter()
        self._wake()
        try:
            while True:
                with self._changed:
                    if self._error is not None:
                        raise self._error
                    if step in self._ready:
                        self._changed.notify_all()
                        return self._ready.pop(step)
                    self._changed.wait(POLL_S)
                while_waiting(time.perf_counter() - started)
        finally:
            self.is_awaited = False
            self.waited_until = time.perf_counter()
            self.waited_s += self.waited_until - started

    def _run(self) -> None:
        try:
            for step in self._steps:
                prepared = self._prepare(step)
                self.busy_s = time.thread_time()
                with self._changed:
                    self._ready[step] = prepared
                    self._changed.notify_all()
                    while len(self._ready) >= self._ahead and not self.stopping:
                        self._changed.wait()
                    if self.stopping:
                        return
        except Stopped:
            pass
        except BaseException as error:  # handed to the training thread, which raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()
