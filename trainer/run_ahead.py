"""Keeps the host near the GPU: steps are launched far faster than they run, and nothing else would wait for them.

A batch is chosen when it is handed out. Handed out many steps before the GPU trains on it, it would find few scored
candidates and weights that look fresher than they will be.
"""

import collections
from collections.abc import Callable
from typing import Protocol

import torch

MOST_QUEUED = 1  # whole steps on the GPU's queue when a batch is handed out: it works while the next one is launched


class Mark(Protocol):
    """A point in the work of a device."""

    def synchronize(self) -> object:
        """Wait until the device has come there."""


class RunAhead:
    """Bounds how many steps the training thread is ahead of its device.

    Args:
        mark: makes a mark behind everything launched so far; None where the host computes and cannot be ahead.
    """

    def __init__(self, mark: Callable[[], Mark] | None) -> None:
        self._mark = mark
        self._queued: collections.deque[Mark] = collections.deque()

    @classmethod
    def of(cls, device: torch.device) -> "RunAhead":
        """Of the device that trains; on any but CUDA it does nothing."""
        if device.type != "cuda":
            return cls(None)

        def mark() -> torch.cuda.Event:
            event = torch.cuda.Event(blocking=True)  # sleeps: the other threads need the core
            event.record(torch.cuda.current_stream(device))
            return event

        return cls(mark)

    def stepped(self) -> None:
        """A step was launched."""
        if self._mark is not None:
            self._queued.append(self._mark())

    def catch_up(self) -> None:
        """Before step s is handed out: wait until the device is over with step s - 2."""
        while len(self._queued) > MOST_QUEUED:
            self._queued.popleft().synchronize()
