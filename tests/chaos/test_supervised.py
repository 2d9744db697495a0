"""`marginstream run` with nobody beside it: what dies is started again, and the run ends as if nothing had been."""

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.arena import ARENA
from tests.chaos.verdict import assert_nothing_lost
from tests.service.processes import Processes, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_run_whose_scorer_and_whose_trainer_are_killed_ends_by_itself_with_nothing_lost(processes: Processes) -> None:
    waiting = ("--fallback", "wait", "--steps", "400", "--checkpoint.every", "20")
    slow = ("--backend", "synthetic", "--synthetic-backend.chunk-s", "0.02")
    running = processes.run("out", *ARENA, *waiting, *slow, "--scorers", "2", "--pin", "none")
    processes.reaches("out", 30)
    for module in ("scorer", "trainer", "scorer"):
        victim = min(children(running.pid, module))
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: victim not in children(running.pid), f"{module} {victim} to be gone")
        processes.reaches("out", processes.step("out") + 40)
    running.succeeds(120)
    assert assert_nothing_lost(processes, "out") == {"stale": 400}
    assert processes.summary("out")["leases"]["expired"] >= 1


def children(parent: int, module: str = "") -> list[int]:
    """Live processes that `parent` started, of `python -m MODULE`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if int(ppid) == parent and state != "Z" and (not module or module.encode() in words):
            found.append(int(folder.name))
    return found
