"""Ranks of a run that are small processes of a test's own, and what a supervisor makes of them."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals
from typing import cast

from common.experiment.children import Child, StopSignals
from common.experiment.progress import Progress
from common.experiment.ranks import Environment, Ranks
from common.experiment.supervise import Outcome, Supervisor, Watch
from tests.common.experiment.progresses import run

# What they share. `resumed`: whether the process goes on with what an earlier one of its rank did.
PRELUDE = """
import json, os, pathlib, signal, sys, time
signal.alarm(30)  # none outlives a test that fails
folder, resumed = pathlib.Path(sys.argv[1]), sys.argv[2] == "True"

def record(step):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"wall_s": 1.0, "step": step}) + "\\n")

def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)

def is_there(name):
    return (folder / name).exists()

def is_buried(name):  # whether the process that left its id there is gone: only when its parent has seen it end
    try:
        os.kill(int((folder / name).read_text()), 0)
    except ProcessLookupError:
        return True
    except (FileNotFoundError, ValueError):
        pass
    return False

def stays():
    (folder / f"stays-{os.environ['RANK']}").touch()
    while True:
        signal.pause()
"""


class Said:
    """A display that keeps what stays on it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __enter__(self) -> "Said":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def show(self, progress: Progress, *, now: bool = False) -> None:
        pass

    def say(self, text: str) -> None:
        self.lines.append(text)


class StopOnce:
    """Stop signals of which one comes as soon as `due` says so."""

    def __init__(self, number: Signals, due: Callable[[], bool]) -> None:
        self._number = number
        self._due = due

    @property
    def received(self) -> list[Signals]:
        return [self._number] if self._due() else []


class Group:
    """A run with one program per rank, in a folder."""

    def __init__(self, folder: Path, programs: Sequence[str]) -> None:
        self.folder = folder
        self.said = Said()
        self.environments: list[Environment] = []
        self._programs = programs
        self.ranks = Ranks(len(programs), self._begin)

    def _begin(self, rank: int, name: str, resume: bool, environment: Environment) -> Child:
        self.environments.append(environment)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PRELUDE + self._programs[rank], str(self.folder), str(resume)],
            env={key: value for key, value in environment.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return Child(name, process, self.folder / f"{name}.log")

    def supervise(
        self, *, stop: Callable[[], bool] = lambda: False, number: Signals = Signals.SIGINT, num_restarts: int = 5
    ) -> Outcome:
        """Until all have ended. `stop`: when a signal of this number comes."""
        watch = Watch(run(self.folder, steps=100), self.said)
        signals = cast(StopSignals, StopOnce(number, stop))
        with self.ranks:
            return Supervisor(self.ranks, [], signals, watch, num_restarts=num_restarts).run(resume=False)

    @property
    def ends(self) -> list[list[str]]:
        """How the processes of each rank ended, by rank."""
        return [[life.ended_by for life in member.lives] for member in self.ranks.members]
