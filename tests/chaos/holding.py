"""Data whose `fetch` hangs in the process that a test points at, in one of the two ways in which Python can hang.

Copied into the folder that trainer and scorers are started in: `--data holding:open_held`.
"""

import ctypes
import os
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from common.config import TrainerOptions
from common.data.source import Source, Split
from common.data.sources import open_source

NUM_SAMPLES = 20_000


def hold(folder: Path, pid: int, how: str) -> Path:
    """Has the next `fetch` of a process hang: in a "loop" until `release`, or `how` many seconds in one call."""
    order = folder / f"hold.{pid}"
    order.with_suffix(".new").write_text(how)
    order.with_suffix(".new").rename(order)
    return order


def release(folder: Path, pid: int) -> None:
    (folder / f"release.{pid}").touch()


def open_held() -> Source:
    options = TrainerOptions.model_validate({"data": "synthetic", "synthetic": {"num_samples": NUM_SAMPLES}})
    return _held(open_source(options))


def open_held_digits() -> Source:
    return _held(open_source(TrainerOptions(data="digits")))


def _held(source: Source) -> Source:
    return replace(source, name="held", train=_Held(source.train))


class _Held:
    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        order = Path(f"hold.{os.getpid()}")
        if order.exists():
            how = order.read_text()
            order.unlink()
            _spin() if how == "loop" else _hold_interpreter(float(how))
        return self._split.fetch(ids)


def _spin() -> None:
    """Python code: other threads get their turns, so this process goes on beating."""
    released = Path(f"release.{os.getpid()}")
    while not released.exists():
        pass


def _hold_interpreter(seconds: float) -> None:
    """One call that never lets go of the interpreter: no other thread of this process runs, none beats."""
    ctypes.PyDLL(None).poll(None, 0, int(1000 * seconds))  # unlike CDLL, PyDLL keeps the lock
