"""Choosing the device, the number of threads and the core of a process."""

import contextlib
import os
from collections.abc import Iterator

import torch

from common.errors import ConfigError


def pick_device(name: str, *, option: str = "--device") -> torch.device:
    """The device of a name; "auto" is the first CUDA device, or the CPU.

    Raises:
        ConfigError: the device does not exist on this machine.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{option} {name}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu or auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"{option} {name}: torch finds no MPS device here; use cpu or auto")
    return device


def set_threads(num: int | None) -> None:
    """Set the intra-op threads; None leaves torch's choice."""
    if num is not None:
        torch.set_num_threads(num)


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keep the calling thread, and the threads and processes that it starts meanwhile, on one core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
