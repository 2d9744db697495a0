"""Decoded images on disk, so that the second process and every later run open them at once and share their pages."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.locks import try_lock
from common.waiting import Wait

logger = logging.getLogger(__name__)

LOCK_S = 3600.0  # to download or to decode a whole data set
LOCK_POLL_S = 0.2


def cache_folder() -> Path:
    """marginstream's part of the user's cache; it can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marginstream"


def available_memory_bytes() -> int:
    """Memory that can be had without swapping, within the container's limit where there is one (Linux)."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (meminfo := Path("/proc/meminfo")).exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available = int(fields.get("MemAvailable", f"{available // 1024} kB").split()[0]) * 1024
    if (limit := Path("/sys/fs/cgroup/memory.max")).exists() and (text := limit.read_text().strip()).isdecimal():
        available = min(available, int(text))
    return available


def cached_array(name: str, state: str, shape: tuple[int, ...], build: Callable[[], np.ndarray]) -> np.ndarray:
    """A uint8 array that is built once and then mapped from disk; it is read-only.

    Args:
        name: what the array is of. A new state replaces the file of an old one.
        state: what the content follows from; another state is another array.
        shape: of the array; a file of another shape is built again.
        build: makes the array. Only one process builds; the others wait for it.

    Where nothing can be written, or a quarter of the free disk is too small, the array stays in this process's memory.
    """
    folder = cache_folder() / "arrays"
    prefix = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    path = folder / f"{prefix}-{hashlib.blake2b(state.encode(), digest_size=16).hexdigest()}.npy"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if np.prod(shape) > shutil.disk_usage(folder).free / 4 and not path.exists():
            raise OSError(f"{np.prod(shape) / 1e9:.1f} GB are more than a quarter of the disk's free space")
        with exclusive(folder / f"{prefix}.lock", f"{name} is being decoded"):
            return _open_or_build(path, prefix, shape, build)
    except OSError as error:
        logger.warning("no cache in %s (%s): every process keeps its own copy of %s", folder, error, name)
        return build()


@contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Holds a lock that other processes wait for; the system releases it if its holder dies.

    Raises:
        TimeoutError: another process held it for an hour.
    """
    with path.open("a") as file:
        if not try_lock(file):
            logger.info("waiting up to %.0f s for another process: %s", LOCK_S, doing)
            wait = Wait(f"the process that holds {path}", LOCK_S, f"{doing}: end that process if it hangs")
            while not try_lock(file):
                if wait.is_over:
                    raise TimeoutError(wait.report())
                time.sleep(LOCK_POLL_S)
        yield


def _open_or_build(path: Path, prefix: str, shape: tuple[int, ...], build: Callable[[], np.ndarray]) -> np.ndarray:
    mapped = _mapped(path, shape)
    if mapped is not None:
        return mapped
    built = build()
    unfinished = path.with_suffix(".part")
    try:
        for older in path.parent.glob(f"{prefix}-*"):  # processes that have one mapped keep it until they end
            older.unlink()
        with unfinished.open("wb") as file:
            np.save(file, built, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        logger.warning("could not write the cache %s: %s", path, error)
        return built
    mapped = _mapped(path, shape)
    return built if mapped is None else mapped


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The file's array without reading it, or None where it is missing, cut short or another's."""
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.shape == shape else None
