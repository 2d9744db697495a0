"""A folder in which `marginstream run` starts a trainer and scorers of a test's own.

`python -m trainer` looks in the working folder first, so a package of that name there is what `run` starts.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What the stand-ins share: their options, the run folder, and ways to tell the test something and to wait for it.
PRELUDE = """
import json, os, pathlib, signal, sys, time, tomllib
signal.alarm(60)  # none outlives a test that fails
options_file = pathlib.Path(sys.argv[2])
folder = options_file.parent
options = tomllib.loads(options_file.read_text())

def record(**figures):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"wall_s": 1.0, **figures}) + "\\n")

def summarise(words, **more):
    (folder / "summary.json").write_text(json.dumps({"words": words, **more}))

def tell(text):
    with (folder.parent / "told").open("w") as fifo:
        fifo.write(text)

def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)

def life():  # which process of its name it is, counted from 1
    with options_file.with_suffix(".lives").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    return len(options_file.with_suffix(".lives").read_text().splitlines())

def is_gone(name, life):  # only when its parent has seen it end
    try:
        os.kill(int((folder / f"options-{name}.lives").read_text().splitlines()[life - 1]), 0)
    except ProcessLookupError:
        return True
    except (FileNotFoundError, IndexError):
        pass
    return False

def stays():
    while True:
        signal.pause()
"""
TRAINS = "record(step=50); summarise('Trained well.')"
LEAVES_ON_TERM = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); stays()"
LEAVES_WITH_TRAINER = "until((folder / 'summary.json').exists)"

RUN = "import sys; from common.cli import main; sys.exit(main(['run', '--out', 'out', *sys.argv[1:]]))"
CPU = ("--device", "cpu", "--scorer-device", "cpu")


class Workplace:
    """A working folder in which `run` starts a trainer and scorers of the test's own."""

    def __init__(self, folder: Path, trainer: str, scorer: str) -> None:
        self.folder = folder
        self.out = folder / "out"
        os.mkfifo(folder / "told")
        for name, code in (("trainer", trainer), ("scorer", scorer)):
            (folder / name).mkdir()
            (folder / name / "__init__.py").touch()
            (folder / name / "__main__.py").write_text(PRELUDE + code + "\n")

    def start(self, *flags: str, **streams: Any) -> "subprocess.Popen[str]":
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen([sys.executable, "-c", RUN, *CPU, *flags], cwd=self.folder, text=True, **streams)

    def run(self, *flags: str) -> tuple[int, str, str]:
        """Exit code, what stood on stdout, what on stderr."""
        return finish(self.start(*flags))

    def told(self) -> str:
        """Waits for the next thing that a stand-in tells."""
        return (self.folder / "told").read_text()

    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return summary

    def options(self, name: str) -> dict[str, Any]:
        return tomllib.loads((self.out / f"options-{name}.toml").read_text())


Make = Callable[..., Workplace]


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
