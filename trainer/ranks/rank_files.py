"""The parts of a checkpoint that several ranks write: `step-STEP.rank-RANK.pt` beside rank 0's `step-STEP.pt`.

rank r: own part ──► fsync ──► renamed
rank 0: own part ──► all others are there ──► fsync ──► renamed: with that the checkpoint is whole
"""

import logging
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from common.errors import PeerTimeout
from common.waiting import Wait

log = logging.getLogger(__name__)

PARTS_S = 90.0  # a network file system shows what another host wrote half a minute later
HURRIED_S = 3.0
POLL_S = 0.05
_NAME = re.compile(r"step-(\d+)\.rank-(\d+)\.pt")


def part_file(folder: Path, step: int, rank: int) -> Path:
    """Where a rank writes its part."""
    return folder / (f"step-{step}.rank-{rank}.pt" if rank else f"step-{step}.pt")


def parts_of_others(folder: Path) -> dict[tuple[int, int], Path]:
    """The parts of all ranks but rank 0, by step and rank."""
    found = {path: _NAME.fullmatch(path.name) for path in folder.glob("step-*.pt")}
    return {(int(name[1]), int(name[2])): path for path, name in found.items() if name is not None}


def await_others(folder: Path, step: int, num_ranks: int, hurried: threading.Event) -> None:
    """Wait until the other ranks have written their parts.

    Args:
        hurried: set when there is no more than `HURRIED_S` left for it.

    Raises:
        PeerTimeout: one of them has not within `PARTS_S`.
    """
    wait = Wait(f"the parts of other ranks of the checkpoint of step {step}", PARTS_S)
    in_a_hurry: Wait | None = None
    while missing := set(range(1, num_ranks)) - {rank for at, rank in parts_of_others(folder) if at == step}:
        if hurried.is_set() and in_a_hurry is None:
            in_a_hurry = Wait("", HURRIED_S)
        if wait.is_over or (in_a_hurry is not None and in_a_hurry.is_over):
            names = ", ".join(part_file(folder, step, rank).name for rank in sorted(missing))
            raise PeerTimeout(f"{wait.words()}: {names} never came; see the log of that rank")
        time.sleep(POLL_S)


def remove_strays(folder: Path, whole: Iterable[int], before: float = float("inf")) -> None:
    """Remove parts of steps, earlier than `before`, at which no checkpoint became whole."""
    steps = set(whole)
    for (step, _), path in parts_of_others(folder).items():
        if step < before and step not in steps:
            removed(path)


def removed(path: Path) -> None:
    """Remove a file of which no use is left; a failure is a warning."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("checkpoint %s is of no more use and cannot be removed: %s", path, error.strerror)
