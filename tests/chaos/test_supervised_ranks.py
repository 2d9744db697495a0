"""`marginstream run` with several trainers: when one is killed all go on together, and the run ends by itself."""

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.test_supervised import children
from tests.service.processes import Processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

RUN = ("--data", "digits", "--trainers", "2", "--scorers", "2", "--device", "cpu", "--scorer-device", "cpu")
LASTS = ("--steps", "600", "--checkpoint.every", "40", "--log.log-every", "5", "--log.eval-every", "0")


def test_two_trainers_of_which_one_is_killed_go_on_from_their_checkpoint_with_the_same_scorers(
    processes: Processes,
) -> None:
    running = processes.run("out", *RUN, *LASTS)
    processes.reaches("out", 100, 180)
    os.kill(rank(1, running.pid), signal.SIGKILL)
    running.says("all trainers are resumed once from their last checkpoint", 30)
    running.succeeds(240)
    summary = processes.summary("out")
    assert summary["steps"] == 600
    assert summary["steps_by_origin"]["stale"] > 0
    lives = {one["name"]: [life["ended_by"] for life in one["lives"]] for one in summary["processes"]}
    assert lives["trainer-1"] == ["SIGKILL", "exit code 0"]
    assert lives["trainer-0"][1:] == ["exit code 0"]
    assert lives["scorer-0"] == lives["scorer-1"] == ["exit code 0"]


def rank(number: int, parent: int) -> int:
    """The process of a rank, by the options that it was given."""
    for pid in children(parent, "trainer"):
        if f"options-trainer-{number}.toml" in (Path("/proc") / str(pid) / "cmdline").read_text():
            return pid
    raise AssertionError(f"no rank {number} runs")
