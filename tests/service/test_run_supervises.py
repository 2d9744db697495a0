"""`marginstream run` with its real trainer and scorer, killed under its hands."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.processes import Processes, assert_balanced, until

STEPS = 600
FLAGS = ("--data", "synthetic", "--scorers", "1", "--backend", "synthetic", "--steps", str(STEPS),
         "--log.log-every", "5", "--log.trace", "--checkpoint.every", "20", "--device", "cpu")  # fmt: skip


def kill(processes: Processes, out: str, name: str) -> None:
    """SIGKILL to the process that `run` started for this test's folder under that name."""
    file = os.fsencode(processes.folder / out / f"options-{name}.toml")
    found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if file in command_of(path)]
    assert len(found) == 1, f"{name}: {found}"
    os.kill(found[0], signal.SIGKILL)


def command_of(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:
        return []  # it has ended


def lives(summary: dict[str, Any], name: str) -> list[str]:
    return [life["ended_by"] for one in summary["processes"] if one["name"] == name for life in one["lives"]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a run in /proc")
def test_a_run_whose_scorer_and_trainer_are_killed_trains_every_step_once_and_says_what_happened(
    processes: Processes,
) -> None:
    run = processes.run("out", *FLAGS)
    processes.reaches("out", 50)
    kill(processes, "out", "scorer-0")
    run.says("scorer-0 was ended by SIGKILL; restart 1 of 5 in 0.5 s")
    processes.reaches("out", 150)
    kill(processes, "out", "trainer")
    run.says("resumed once from its last checkpoint")
    run.succeeds(within_s=120)
    summary = processes.summary("out")
    assert lives(summary, "trainer") == ["SIGKILL", "exit code 0"]
    assert lives(summary, "scorer-0") == ["SIGKILL", "exit code 0"]
    assert summary["generation"] == 2
    assert [line["step"] for line in processes.trace("out")] == list(range(STEPS))
    assert_balanced(summary)
    assert "Started again: trainer (once, after SIGKILL); scorer-0 (once, after SIGKILL)" in run.output


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_command_that_it_names(processes: Processes) -> None:
    run = processes.run("out", *FLAGS)
    processes.reaches("out", 50)
    run.send(signal.SIGTERM)
    assert run.code() == 128 + signal.SIGTERM
    words = next(line for line in run.output.splitlines() if line.startswith("Go on with: marginstream "))
    again = processes.start("again", "-c", "import sys; from common.cli import main; sys.exit(main())",
                            *words.removeprefix("Go on with: marginstream ").split())  # fmt: skip
    until(lambda: "going on with the run in" in again.output, "the run to go on")
    again.succeeds(within_s=120)
    assert [line["step"] for line in processes.trace("out")] == list(range(STEPS))
    assert_balanced(processes.summary("out"))
