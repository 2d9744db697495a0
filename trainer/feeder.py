"""A thread that has the next batch ready before the current step ends."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

from common.errors import PeerTimeout
from common.scheduling import Elsewhere
from common.waiting import Wait, joined
from trainer.lull import Lull

T = TypeVar("T")

POLL_S = 0.2
PARK_S = 10.0  # for a batch that is being read and selected
END_S = 30.0
LITTLE = 0.5  # of a lull: work that is done on the scorers' cores
IDLE_S = 600.0  # for the training thread to come for a batch
STORAGE = "it reads data: does the storage answer?"


class Stopped(Exception):
    """Raised inside `prepare` when the run ends."""


class Feeder(Generic[T]):
    """Calls `prepare(step)` for one step after the other, some steps ahead of whoever calls `get`.

    Args:
        prepare: runs on the feeder's thread; may wait, looking at `is_awaited` and calling `rest` now and then.
        start_step, stop_step: the steps to prepare, unless `restore` says where to go on.
        ahead: the most batches that are ready and not asked for yet.
        at_a_time: once it has stopped it begins when so many are missing, and makes them one after the other: what the
            first of them brings into the caches, where a training step on the same core had driven it out, is there for
            the others.
        lull: of the training thread, ended by `get`; what fits into one waits for it, unless that batch is awaited.
        wake: called, on the training thread, when it starts to wait: prepare may give up waiting for better.
    """

    def __init__(
        self,
        prepare: Callable[[int], T],
        start_step: int,
        stop_step: int,
        *,
        ahead: int = 1,
        at_a_time: int = 1,
        lull: Lull | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._prepare = prepare
        self._steps = range(start_step, stop_step)
        self._ahead, self._at_a_time = ahead, at_a_time
        self._lull = Lull() if lull is None else lull
        self._wake = wake
        self._changed = threading.Condition()
        self._ready: dict[int, T] = {}
        self._error: BaseException | None = None
        self.is_awaited = False  # the training thread stands still for the very batch that is being prepared
        self.stopping = False
        self._is_parked = False
        self._rests = False  # its thread stands where nothing is half done
        self.waited_s = 0.0
        self.waited_until = 0.0  # end of the last wait, by time.perf_counter
        self.busy_s = 0.0  # that its thread computed, waits left out
        self._busy_before_s = 0.0
        self._began_at = 0.0  # with the batches that it makes in one go, by time.perf_counter
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def restore(self, step: int, ready: Mapping[int, T], *, waited_s: float, busy_s: float) -> None:
        """Before the start: go on with `step`, for which a batch may be ready, after an earlier life."""
        self._ready = dict(ready)
        self._steps = range(max(ready, default=step - 1) + 1, self._steps.stop)
        self.waited_s, self.busy_s, self._busy_before_s = waited_s, busy_s, busy_s

    def stop(self) -> None:
        with self._changed:
            self.stopping = True
            self._changed.notify_all()
        self._hurry()
        if self._thread.ident is not None:
            joined(self._thread, Wait("the feeder's thread to end", END_S, STORAGE))

    def rest(self) -> None:
        """For `prepare`, wherever it waits and nothing is half done: stays here while the feeder is parked.

        Raises:
            Stopped: the run ends.
        """
        with self._changed:
            self._wait_while(lambda: self._is_parked)
            if self.stopping:
                raise Stopped

    @contextmanager
    def parked(self) -> Iterator[Mapping[int, T]]:
        """Hold its thread between two batches, or where `prepare` waits; gives what is ready, by step.

        Raises:
            PeerTimeout: it did not come to rest in time; it goes on.
        """
        with self._changed:
            self._is_parked = True
        self._hurry()
        try:
            with self._changed:
                self._changed.notify_all()
                wait = Wait("the next batch to be read", PARK_S, STORAGE)
                if not self._changed.wait_for(lambda: self._rests or self._thread.ident is None, PARK_S):
                    raise PeerTimeout(wait.report())
                if self._error is not None:
                    raise self._error
                ready = dict(self._ready)
            yield ready
        finally:
            with self._changed:
                self._is_parked = False
                self._changed.notify_all()

    def get(self, step: int, while_waiting: Callable[[float], None] = lambda waited_s: None) -> T:
        """The prepared batch of a step. The training thread's only wait; its length is added to `waited_s`.

        Args:
            while_waiting: called now and then with the seconds waited; may raise to end the wait.
        """
        with self._changed:
            if step in self._ready:
                self._lull.end()
                return self._take(step)
            self.is_awaited = True
        started = time.perf_counter()
        self._hurry()
        try:
            while True:
                with self._changed:
                    if self._error is not None:
                        raise self._error
                    if step in self._ready:
                        return self._take(step)
                    self._changed.wait(POLL_S)
                while_waiting(time.perf_counter() - started)
        finally:
            self.is_awaited = False
            self.waited_until = time.perf_counter()
            self.waited_s += self.waited_until - started
            self._lull.end(self.waited_until - started)

    def _hurry(self) -> None:
        """Have its thread wait no more for what would be better."""
        self._lull.release()
        self._wake()

    def _take(self, step: int) -> T:
        """With the lock held. Does not wake its thread for nothing."""
        batch = self._ready.pop(step)
        if self._is_due:
            self._changed.notify_all()
        return batch

    @property
    def _is_due(self) -> bool:
        """Whether enough batches are missing to begin with one."""
        return len(self._ready) <= self._ahead - self._at_a_time

    def _run(self) -> None:
        try:
            elsewhere, self._began_at = Elsewhere(), time.perf_counter()
            for step in self._steps:
                self._await_turn(elsewhere)
                if self.stopping:
                    return
                prepared = self._prepare(step)
                self.busy_s = self._busy_before_s + time.thread_time()
                with self._changed:
                    self.is_awaited = False  # before the next batch is prepared, which nobody waits for yet
                    self._ready[step] = prepared
                    self._changed.notify_all()
        except Stopped:
            pass
        except BaseException as error:  # handed to the training thread, which raises it
            self._error = error
        finally:
            with self._changed:
                self._rests = True
                self._changed.notify_all()

    def _await_turn(self, elsewhere: Elsewhere) -> None:
        """Until enough batches are missing and training can spare the interpreter."""
        if not self._is_parked and len(self._ready) < self._ahead:
            return
        work_s = time.perf_counter() - self._began_at
        elsewhere.go(work_s <= LITTLE * self._lull.lasted_s)
        with self._changed:
            self._wait_while(lambda: self._is_parked or not self._is_due)
        if not self.is_awaited:
            self._lull.wait(work_s)
        self._began_at = time.perf_counter()

    def _wait_while(self, holds: Callable[[], bool]) -> None:
        """With the lock held; ends when the run does. What is waited for is the training thread's to do."""
        wait = Wait("the training loop to come for a batch", IDLE_S, "an evaluation takes that long, or it hangs")
        while holds() and not self.stopping:
            if wait.is_over:
                wait.report()
            self._rests = True
            self._changed.notify_all()
            self._changed.wait(POLL_S)
        self._rests = False
