"""Lines appended to a file of the run folder; a disk that is full costs lines, not the run."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from common.sparing_log import SparingLog

logger = logging.getLogger(__name__)

LOG_EVERY_S = 60.0


class LineWriter:
    """Appends whole lines. Driven by one thread; nothing stays open or in memory between two calls.

    Args:
        path: made with the first line.

    Attributes:
        num_missing: lines that were given up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = SparingLog(logger, LOG_EVERY_S)
        self._is_failing = False
        self.num_missing = 0

    def write(self, lines: Sequence[str], *, kept: bool = False) -> bool:
        """Append all lines, or none: what a full disk took of them is taken back.

        Args:
            lines: without their ends.
            kept: by the caller, who writes them again if they could not be written, so they are not missing.

        Returns:
            False if they could not be written, which is logged.
        """
        try:
            _append(self._path, "".join(line + "\n" for line in lines).encode())
        except OSError as error:
            self._is_failing = True
            self.num_missing += 0 if kept else len(lines)
            text = f"ALARM: {self._path.name} is not written: {error.strerror or error}; the run goes on"
            self._log.say("fails", text, level=logging.ERROR)
            return False
        if self._is_failing:
            self._is_failing = False
            self._log.say("works", f"{self._path.name} is written again; {self.num_missing} lines of it are missing")
        return True


def _append(path: Path, data: bytes) -> None:
    """Raises OSError, and leaves the file as it was, where that can be done."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data  # half a line that could not be taken back must not grow into this one
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError as error:
            try:
                os.ftruncate(descriptor, size)
            except OSError:
                raise error from None
            raise
    finally:
        os.close(descriptor)
