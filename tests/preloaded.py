"""A process that has imported everything already and forks for each command: a start takes milliseconds, not seconds.

Each command still is a process of its own, in a session of its own, and runs as `python -m MODULE ...` or
`python -c CODE ...` would; only the imports came before the fork. For tests alone: what forks has computed nothing and
runs no thread of its own.

Requests come on stdin, one line of JSON each: number, arguments, folder, output, errors. Answers go to stdout:
`NUMBER pid PID` and later `NUMBER code CODE`, negative for a signal.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parents[1]
START_S = 60.0
POLL_S = 0.005


class Child:
    """A command that was started: as much of `subprocess.Popen` as tests use."""

    def __init__(self, owner: "Preloaded", number: int) -> None:
        self._owner = owner
        self._number = number
        self.pid = owner.wait_for(number, "pid", START_S)

    def poll(self) -> int | None:
        """The exit code, negative for a signal that killed it; None while it runs."""
        return self._owner.answer(self._number, "code")

    def wait(self, timeout: float) -> int:
        """Raises subprocess.TimeoutExpired."""
        return self._owner.wait_for(self._number, "code", timeout)


class Preloaded:
    """Owns the process that forks. It ends with the context, or with this process."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
            bufsize=0,
        )
        self._answers: dict[tuple[int, str], int] = {}
        self._rest = b""
        self._started = 0
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # no further command: it ends
        self._process.stdout.close()
        self._process.wait(START_S)

    def start(self, arguments: list[str], folder: Path, output: Path, errors: Path | None = None) -> Child:
        """Start `python ARGUMENTS` in a folder; stdout and stderr go to the file `output`, or stderr to `errors`."""
        assert self._process.stdin is not None
        self._started += 1
        request = {"number": self._started, "arguments": arguments, "folder": str(folder), "output": str(output)}
        request["errors"] = None if errors is None else str(errors)
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return Child(self, self._started)

    def wait_for(self, number: int, what: str, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while (value := self.answer(number, what)) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"{what} of command {number}", timeout_s)
            self._read(min(0.1, timeout_s))
        return value

    def answer(self, number: int, what: str) -> int | None:
        self._read(0)
        return self._answers.get((number, what))

    def _read(self, timeout_s: float) -> None:
        """Take in what has been answered, waiting at most so long for it."""
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], timeout_s)[0]:
            return
        data = os.read(stdout.fileno(), 1 << 16)
        assert data, "the process that forks has ended"
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            number, what, value = line.split()
            self._answers[int(number), what.decode()] = int(value)


def main() -> None:
    """Fork for each request until stdin ends."""
    _import_everything()
    numbers: dict[int, int] = {}  # by pid
    rest = b""
    while True:
        if select.select([0], [], [], POLL_S if numbers else None)[0]:
            if not (data := os.read(0, 1 << 16)):
                os._exit(0)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if (pid := os.fork()) == 0:
                    _end(_become(request))
                numbers[pid] = request["number"]
                _say(request["number"], "pid", pid)
        while numbers and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _say(numbers.pop(ended[0]), "code", os.waitstatus_to_exitcode(ended[1]))


def _say(number: int, what: str, value: int) -> None:
    os.write(1, f"{number} {what} {value}\n".encode())


def _import_everything() -> None:
    for name in (
        "sklearn.datasets",
        "torch._dynamo",  # the first optimiser would import it
        "torchvision",
        "scorer.loop",
        "scorer.predictor_backend",
        "scorer.proxy_backend",
        "scorer.torch_backend",
        "trainer.loop",
    ):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection of every child copies all pages of these imports


def _become(request: dict[str, Any]) -> int:
    """In the child: run the command. Returns its exit code."""
    os.setsid()
    os.chdir(request["folder"])
    for name, flags, number in (
        (os.devnull, os.O_RDONLY, 0),
        (request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 1),
        (request["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 2),
    ):
        opened = os.dup(1) if name is None else os.open(name, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    kind, command, *arguments = request["arguments"]
    sys.argv = [kind, *arguments]
    try:
        if kind == "-m":
            sys.path[0] = os.getcwd()
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        else:
            assert kind == "-c", f"neither -m nor -c: {kind}"
            sys.path[0] = ""
            exec(compile(command, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        return 1
    return 0


def _end(code: int) -> None:
    """What an interpreter does at its end, but for taking all modules apart, which with torch takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
