"""Checkpoints in the run folder: whole or absent, the last few kept, a damaged one passed over.

    training thread: state ──► copied ──► writer thread: temporary file ──► fsync ──► renamed ──► old ones removed

A checkpoint is a zip file of tensors and plain values, which torch writes with a checksum for each part. Several ranks
write one each, see `trainer.ranks.rank_files`.
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
from common.waiting import Wait, joined
from common.whole_files import replacing, said_by_system
from trainer.ranks.group import ALONE, Group
from trainer.ranks.rank_files import await_others, part_file, parts_of_others, remove_strays, removed
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
        group: the ranks that save together, each its part, after the same steps.

    Attributes:
        num_saved, num_failed: written, and not written because the disk was full or the like.
        last_saved_step: of the newest that was written in this life of the run; -1 before.
    """

    def __init__(self, run_folder: Path, options: CheckpointOptions, group: Group = ALONE) -> None:
        self._folder = run_folder / FOLDER
        self._options = options
        self._group = group
        self._writer: threading.Thread | None = None
        self._hurried = threading.Event()
        self._wait = Wait("a checkpoint to be written", WRITE_S)
        self._next_at = time.monotonic() + options.every_s
        self.num_saved = 0
        self.num_failed = 0
        self.last_saved_step = -1

    def due(self, step: int) -> bool:
        """Whether the state after `step` optimiser steps is to be saved."""
        return self.due_by_steps(step) or self.due_by_time()

    def due_by_steps(self, step: int) -> bool:
        """As all ranks find it."""
        return self._options.every > 0 and step % self._options.every == 0

    def due_by_time(self) -> bool:
        """By this rank's clock."""
        return time.monotonic() >= self._next_at

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
        said = said_by_system(error) or str(error)
        log.error("ALARM: checkpoint of step %d was not written: %s; the one before it is kept", step, said)

    def hurry(self) -> None:
        """What is being written waits but a moment longer for other ranks, which have ended perhaps."""
        self._hurried.set()

    def close(self) -> bool:
        """Wait until what was saved is on disk; False if it is not within `WRITE_S` of its beginning."""
        if self._writer is not None:
            if not joined(self._writer, self._wait):
                return False
            self._writer = None
        return True

    def load(self) -> dict[str, Any] | None:
        """The newest whole state, on the CPU; None if there is none. Ranks call this together.

        Of several ranks, each gets what rank 0 saved, and of what every rank saved its own: `record`, `batches` and
        `rank`. If the state is of another number of ranks, `shards` are the `batches` of all of them instead.

        Raises:
            ConfigError: there are checkpoints and every one of them is damaged.
        """
        if self._group.is_first:
            for half in self._folder.glob(".*.pt.*"):  # at which a killed trainer stopped writing
                half.unlink()
            remove_strays(self._folder, self._steps())
        steps = self._group.share(self._steps())
        for step in reversed(steps):
            path, state, damage = part_file(self._folder, step, 0), {}, ""
            try:
                state = self._read_own(step)
            except Exception as error:  # whatever a damaged file makes its reader raise
                damage = str(error) or type(error).__name__
            damages = self._group.gather(damage)
            if not any(damages):
                log.info("going on from %s", path)
                return state
            why = next(filter(None, damages))
            log.warning("checkpoint %s is damaged (%s); trying the one before it", path, why)
        if steps:
            raise ConfigError(f"--resume: all {len(steps)} checkpoints in {self._folder} are damaged; start a new run")
        return None

    def _read_own(self, step: int) -> dict[str, Any]:
        """What this rank goes on from."""
        state, own = _read(part_file(self._folder, step, 0)), self._group.rank
        num_ranks = state.get("num_ranks", 1)
        if num_ranks == self._group.size:
            return state | (self._read_part(step, own, state) if own else {})
        parts = [state] + [self._read_part(step, rank, state) for rank in range(1, num_ranks)]
        state["shards"] = [part["batches"] for part in parts]
        if own:
            state["record"] = parts[own % num_ranks]["record"]
            state["rank"] = parts[own]["rank"] if own < num_ranks else None
        return state

    def _read_part(self, step: int, rank: int, first: Mapping[str, Any]) -> dict[str, Any]:
        part = _read(path := part_file(self._folder, step, rank))
        if (part["step"], part["generation"]) != (first["step"], first["generation"]):
            raise ValueError(f"{path.name} is of another life of the run")
        return part

    def forget_after(self, step: int) -> None:
        """The run goes on from `step`, on a course of its own: what several ranks saved later is removed.

        It would be taken for parts of what they save now.
        """
        if self._group.is_first and self._group.size > 1:
            later = [at for at in self._steps() if at > step]
            for at in later:
                removed(part_file(self._folder, at, 0))
            remove_strays(self._folder, self._steps())

    def _steps(self) -> list[int]:
        """Of the checkpoints that are there, ascending."""
        return sorted(int(match[1]) for path in self._folder.glob("*.pt") if (match := _NAME.fullmatch(path.name)))

    def _write(self, step: int, state: dict[str, Any]) -> None:
        group = self._group
        path = part_file(self._folder, step, group.rank)
        try:
            self._folder.mkdir(exist_ok=True)
            with replacing(path) as file:
                torch.save(state, file)
                if group.is_first:
                    await_others(self._folder, step, group.size, self._hurried)
        except Exception as error:  # torch wraps what the disk says into errors of its own
            self.fail(step, error)
            return
        self.num_saved += 1
        self.last_saved_step = step
        if group.is_first:
            self._prune(step)

    def _prune(self, step: int) -> None:
        """Remove old ones, and those of later steps: of a course that was left when the run went on before them."""
        steps = self._steps()
        later = [other for other in steps if other > step]
        useless = steps[: -len(later) or None][: -self._options.keep] + later
        parts = parts_of_others(self._folder)
        for old in useless:
            removed(part_file(self._folder, old, 0))
            for path in (path for (at, _), path in parts.items() if at == old):
                removed(path)
        remove_strays(self._folder, set(steps) - set(useless), before=step)


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as parts:  # torch reads without looking at the checksums
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
