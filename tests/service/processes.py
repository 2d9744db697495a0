"""Processes that tests of the service start, watch with deadlines, and end: those they started and no others."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.config import RunOptions, ScorerOptions, TrainerOptions, load_options, to_toml
from common.processes import private_folder
from tests.preloaded import Preloaded

WITHIN_S = 60.0
POLL_S = 0.02

CONSOLE = "import sys; from common.cli import main; sys.exit(main())"
QUICK = ("--threads", "1", "--log.no-tensorboard")
"""Flags of trainers and runs that are compared or hurried."""


def until(holds: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """The first true value of `holds()`; fails with `what` after the deadline. The only wait of these tests."""
    deadline = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s in vain for {what}"
        time.sleep(POLL_S)
    return value


class Process:
    """One process with its output in a file, so that a failing test can show it."""

    def __init__(self, name: str, arguments: list[str], folder: Path, preloaded: Preloaded) -> None:
        self.name = name
        self.log = folder / f"{name}.out"
        self.log.touch()  # what it says is looked for before it says anything
        self._process = preloaded.start(arguments, folder, self.log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str, within_s: float = WITHIN_S) -> None:
        """Waits until it has written `text`; fails if it ends before."""

        def said() -> bool:
            has_ended = self._process.poll() is not None  # looked at first: what it wrote is complete then
            if text in self.output:
                return True
            assert not has_ended, f"{self.name} ended without saying {text!r}:\n{self.output}"
            return False

        until(said, f"{self.name} to say {text!r}", within_s)

    def send(self, number: signal.Signals) -> None:
        assert self._process.poll() is None, f"{self.name} has ended already:\n{self.output}"
        os.kill(self._process.pid, number)

    def code(self, within_s: float = WITHIN_S) -> int:
        """Waits for its end. The exit code, negative for a signal that killed it."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {within_s:.0f} s:\n{self.output}") from None

    def succeeds(self, within_s: float = WITHIN_S) -> None:
        code = self.code(within_s)
        assert code == 0, f"{self.name} ended with {code}:\n{self.output}"

    def end(self) -> None:
        """Ends it and the children that it left behind: it leads a session of its own."""
        try:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(WITHIN_S)


@dataclass(frozen=True)
class Service:
    """A trainer and its scorers."""

    trainer: Process
    scorers: list[Process]

    def succeeds(self) -> None:
        for process in (self.trainer, *self.scorers):
            process.succeeds()


class Processes:
    """Starts processes in a folder, whose modules they can import; leaving the context ends those that still run."""

    def __init__(self, folder: Path, preloaded: Preloaded) -> None:
        self.folder = folder
        self._preloaded = preloaded
        self._private = private_folder()
        self._all: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._all:
            process.end()
        self._private.cleanup()

    def endpoint(self, name: str = "t") -> str:
        """An ipc endpoint in a private folder with a short path."""
        return f"ipc://{self._private.name}/{name}"

    def trainer(self, out: str, *flags: str) -> Process:
        return self.start(f"trainer-{out}", "-m", "trainer", "--out", out, *QUICK, *flags)

    def scorer(self, name: str, endpoint: str, *flags: str) -> Process:
        return self.start(name, "-m", "scorer", "--connect", endpoint, "--threads", "1", *flags)

    def synthetic_scorer(self, name: str, endpoint: str, *flags: str) -> Process:
        """A scorer without torch: starts in a fraction of a second."""
        return self.scorer(name, endpoint, "--backend", "synthetic", *flags)

    def service(self, out: str, *flags: str) -> "Service":
        """The processes that `marginstream run` starts for these flags, told what it tells them."""
        options = load_options(RunOptions, [*QUICK, *flags])
        endpoint = self.endpoint(out)
        told: dict[str, TrainerOptions | ScorerOptions] = {}
        told[f"trainer-{out}"] = options.for_trainer(listen=endpoint, out=Path(out))
        told |= {f"scorer-{out}-{index}": options.for_scorer(connect=endpoint) for index in range(options.scorers)}
        started = []
        for name, own in told.items():
            file = self.folder / f"{name}.toml"
            file.write_text(to_toml(own.dump()))
            started.append(self.start(name, "-m", name.partition("-")[0], "--config", str(file)))
        return Service(started[0], started[1:])

    def run(self, out: str, *flags: str) -> Process:
        """`marginstream run`. Its own children are not preloaded: seconds to start, for what `service` cannot tell."""
        return self.start(f"run-{out}", "-c", CONSOLE, "run", "--out", out, *QUICK, *flags)

    def start(self, name: str, *arguments: str) -> Process:
        process = Process(name, list(arguments), self.folder, self._preloaded)
        self._all.append(process)
        return process

    # -- run folders ----------------------------------------------------------------------------------------------

    def summary(self, out: str) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.folder / out / "summary.json").read_text())
        return summary

    def metrics(self, out: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that are complete so far; [] before there is one."""
        return _lines(self.folder / out / "metrics.jsonl")

    def trace(self, out: str) -> list[dict[str, Any]]:
        return _lines(self.folder / out / "trace.jsonl")

    def lines(self, out: str, name: str) -> list[dict[str, Any]]:
        """The lines of any file of JSON lines in a run folder; [] before there is one."""
        return _lines(self.folder / out / name)

    def reaches(self, out: str, step: int, within_s: float = WITHIN_S) -> None:
        """Waits until the run has completed `step` steps, by its metrics."""
        until(lambda: self.step(out) >= step, f"{out} to reach step {step}", within_s)

    def step(self, out: str) -> int:
        """The last logged step; -1 before the first."""
        return max((line["step"] for line in self.metrics(out)), default=-1)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def assert_balanced(summary: dict[str, Any]) -> None:
    """leased = consumed + expired + dropped + skipped + outstanding, and something was leased."""
    account = dict(summary["leases"])
    leased = account.pop("leased")
    assert leased == sum(account.values()), summary["leases"]
    assert leased > 0
