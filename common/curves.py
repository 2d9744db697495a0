"""Curves of a run for TensorBoard; while they cannot be written, points are left out and the run goes on."""

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

FLUSH_S = 10
RETRY_S = 60.0


class Curves:
    """Driven by one thread; TensorBoard's own thread writes.

    Args:
        folder: of the event files; a new one after each failure.
        purge_step: points from it on that are in the folder are no longer shown.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._folder = folder
        self._purge_step = purge_step
        self._writer: SummaryWriter | None = None
        self._retry_at = 0.0
        self._is_failing = False
        self.add({}, 0)

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """A point for each number; None and what is not finite have none."""
        if self._writer is None and time.monotonic() < self._retry_at:
            return
        try:
            if self._writer is None:
                self._writer = _opened(self._folder, self._purge_step)
                self._purge_step = None
            for tag, value in values.items():
                _add_point(self._writer, tag, value, step)
        except Exception as error:  # OSError, or what TensorFlow makes of it where that is installed
            self._fail(error)
            return
        if self._is_failing and values:
            self._is_failing = False
            logger.warning("curves are written again; points since the alarm are missing")

    def close(self) -> None:
        """Writes what is still queued."""
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as error:
                self._fail(error)
            self._writer = None

    def _fail(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY_S
        self._is_failing = True
        reason = getattr(error, "strerror", None) or error
        logger.error("ALARM: %s is not written: %s; the run goes on", self._folder.name, reason)
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):  # it says the same again
                writer.close()


def _opened(folder: Path, purge_step: int | None) -> "SummaryWriter":
    # Imported here: it takes a second, and only a trainer that draws curves needs it.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), flush_secs=FLUSH_S, purge_step=purge_step)


def _add_point(writer: "SummaryWriter", tag: str, value: Any, step: int) -> None:
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, int | float) and abs(number) < float("inf"):  # NaN compares false
        writer.add_scalar(tag, number, step)
