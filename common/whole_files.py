"""Files that a reader, and a crash at any moment, finds whole: as they were before or as they are now."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def replace_file(path: Path, text: str) -> None:
    """Writes a file so that a reader, and a crash at any moment, finds the old text or the new one, whole."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` when the block ends, and leaves it as it is if that raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync_folder(path.parent)


def said_by_system(error: BaseException) -> str | None:
    """What the system said, below what torch makes of it in closing its file; None if it said nothing."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            return below.strerror or str(below)
        below = below.__cause__ or below.__context__
    return None


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
