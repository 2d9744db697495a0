"""Checkpoints in the run folder: whole or absent, the last few kept, a damaged one passed over.

    training thread: state ──► copied ──► writer thread: temporary file ──► fsync ──► renamed ──► old ones removed

A checkpoint is a zip file of tensors and plain values, which torch writes with a checksum for each part.
"""

import logging
import re
import threading
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from common.config.training import CheckpointOptions
from common.errors import ConfigError, PeerTimeout
from common.run_folder import replacing
from common.waiting import Wait, joined
from trainer.state import copied

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
WRITE_S = 120.0
_NAME = re.compile(r"step-(\d+)\.pt")


class Checkpoints:
    """The checkpoints of one run. Used by the training thread; `close` waits for what is being written.

    Args:
        run_folder: they are in `checkpoints/step-STEP.pt` below it.
        options: when one is due and how many of the newest stay.

    Attributes:
        num_saved, num_failed: written, and not written because the disk was full or the like.
        last_saved_step: of the newest that was written in this life of the run; -1 before.
    """

    def __init__(self, run_folder: Path, options: CheckpointOptions) -> None:
        self._folder = run_folder / FOLDER
        self._options = options
        self._writer: threading.Thread | None = None
        self._wait = Wait("a checkpoint to be written", WRITE_S)
        self._next_at = time.monotonic() + options.every_s
        self.num_saved = 0
        self.num_failed = 0
        self.last_saved_step = -1

    def due(self, step: int) -> bool:
        """Whether the state after `step` optimiser steps is to be saved."""
        by_steps = self._options.every > 0 and step % self._options.every == 0
        return by_steps or time.monotonic() >= self._next_at

    def save(self, step: int, state: Mapping[str, Any], *, own: Mapping[str, Any] | None = None) -> None:
        """Write a state after `step` optimiser steps; beside training, which goes on when this returns.

        Tensors are copied here, so they may change at once. If the one before is still being written, that is waited
        for, but not for long. A failure to write is logged and counted; the run goes on.

        Args:
            own: more of the state, which nobody else holds: it is not copied again.
        """
        if not self.close():
            self.fail(step, PeerTimeout(self._wait.words()))
            return
        self._next_at = time.monotonic() + self._options.every_s
        self._wait = Wait(f"the checkpoint of step {step} to be written", WRITE_S, "is the disk stuck?")
        whole = {**copied(state), **(own or {})}
        self._writer = threading.Thread(target=self._write, args=(step, whole), name="checkpoint", daemon=True)
        self._writer.start()

    def fail(self, step: int, error: Exception) -> None:
        """There is no state to save; logged and counted."""
        self._next_at = time.monotonic() + self._options.every_s
        self.num_failed += 1
        log.error("ALARM: checkpoint of step %d was not written: %s; the one before it is kept", step, _reason(error))

    def close(self) -> bool:
        """Wait until what was saved is on disk; False if it is not within `WRITE_S` of its beginning."""
        if self._writer is not None:
            if not joined(self._writer, self._wait):
                return False
            self._writer = None
        return True

    def load(self) -> dict[str, Any] | None:
        """The newest whole state, on the CPU; None if there is none.

        Raises:
            ConfigError: there are checkpoints and every one of them is damaged.
        """
        for half in self._folder.glob(".*.pt.*"):  # at which a killed trainer stopped writing
            half.unlink()
        paths = self._paths()
        for path in reversed(paths):
            try:
                state = _read(path)
            except Exception as error:  # whatever a damaged file makes its reader raise
                log.warning("checkpoint %s is damaged (%s); trying the one before it", path, error)
                continue
            log.info("going on from %s", path)
            return state
        if paths:
            raise ConfigError(f"--resume: all {len(paths)} checkpoints in {self._folder} are damaged; start a new run")
        return None

    def _paths(self) -> list[Path]:
        """Oldest first."""
        found = [(int(match[1]), path) for path in self._folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def _write(self, step: int, state: dict[str, Any]) -> None:
        path = self._folder / f"step-{step}.pt"
        try:
            self._folder.mkdir(exist_ok=True)
            with replacing(path) as file:
                torch.save(state, file)
        except Exception as error:  # torch wraps what the disk says into errors of its own
            self.fail(step, error)
            return
        self.num_saved += 1
        self.last_saved_step = step
        self._prune(step)

    def _prune(self, step: int) -> None:
        """Remove old ones, and those of later steps: of a course that was left when the run went on before them."""
        paths = self._paths()
        later = [path for path in paths if _step_of(path) > step]
        for old in paths[: -len(later) or None][: -self._options.keep] + later:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                log.warning("checkpoint %s is of no more use and cannot be removed: %s", old, error.strerror)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _reason(error: BaseException) -> str:
    """What the system said, below what torch makes of it in closing its file."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            return below.strerror or str(below)
        below = below.__cause__ or below.__context__
    return str(error)


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as parts:  # torch reads without looking at the checksums
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
