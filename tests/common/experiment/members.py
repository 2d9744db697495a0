"""Members of a run whose processes end when a test says so."""

import signal
import subprocess
from pathlib import Path
from typing import cast

from common.experiment.children import Child
from common.experiment.members import Member

RUNS, IN_ORDER, KILLED = None, 0, -signal.SIGKILL


class Process:
    """Ends when a test says so."""

    pid = 7

    def __init__(self) -> None:
        self.code: int | None = RUNS

    def poll(self) -> int | None:
        return self.code


def member(name: str = "scorer-0", folder: Path = Path()) -> Member:
    def begin(_: bool) -> Child:
        return Child(name, cast("subprocess.Popen[bytes]", Process()), folder / f"{name}.log")

    made = Member(name, begin)
    made.start()
    return made


def end(one: Member, code: int | None = KILLED) -> None:
    cast(Process, one.now.process).code = code
