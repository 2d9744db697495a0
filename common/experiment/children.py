"""The processes of one run: started together, watched, ended in order, and what became of each in words."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal

from common.config import ScorerOptions, TrainerOptions
from common.processes import SAME_SIGNAL_S, TERM_S, reaped, start

LOG_END_BYTES = 1 << 16
ERROR_LINES = 40
SHOWN_LINES = 15

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Child:
    """One process that this one started, with the log that holds its output.

    Args:
        log_from: bytes of the log that are of others before it.
    """

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path, *, log_from: int = 0) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._log_from = log_from
        self.started_at = time.monotonic()
        self._ended_at: float | None = None

    @property
    def is_running(self) -> bool:
        return self._poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code as a shell would give it: 128 + N for signal N. None while it runs."""
        code = self._poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def killed_by(self) -> int | None:
        """Number of the signal that it died of; None also where it ended in order after one."""
        code = self._poll()
        return -code if code is not None and code < 0 else None

    @property
    def ended_by(self) -> str:
        """`exit code 1`, `SIGKILL`; empty while it runs."""
        if self.is_running:
            return ""
        return f"exit code {self.code}" if self.killed_by is None else _name_of(self.killed_by)

    @property
    def alive_s(self) -> float:
        """Seconds from its start to its end, as far as that was seen, or to now."""
        return (time.monotonic() if self._ended_at is None else self._ended_at) - self.started_at

    def _poll(self) -> int | None:
        code = self.process.poll()
        if code is not None and self._ended_at is None:
            self._ended_at = time.monotonic()
        return code

    def terminate(self) -> None:
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and what it started, at once: it leads a process group of its own."""
        if self.is_running:  # not reaped yet, so the id is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        reaped(self.process)

    def fate(self) -> str:
        """`scorer-0 was ended by SIGKILL`."""
        if self.is_running:
            return f"{self.name} is running"
        return f"{self.name} {'ended with' if self.killed_by is None else 'was ended by'} {self.ended_by}"

    def says(self, num: int) -> list[str]:
        """The last lines of what it wrote, see `last_lines`."""
        return last_lines(self.log, num, since=self._log_from)

    def error(self) -> str:
        """What it said about its failure: its own `error: ...`, or else how it ended and the end of its log."""
        lines = self.says(ERROR_LINES)
        starts = [index for index, line in enumerate(lines) if line.startswith("error: ")]
        if starts and self.code not in (None, 0):
            return "\n".join(lines[starts[-1] :])
        shown = "".join(f"\n  {line}" for line in lines[-SHOWN_LINES:])
        ending = f"; the end of {self.log}:{shown}" if shown else f" and wrote nothing to {self.log}"
        return f"error: {self.fate()}{ending}"


class Children:
    """Starts the processes of one run; leaving the context ends those that still run.

    Args:
        folder: gets the options file and the log of each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Child] = []

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end_all(self._all)

    def start(
        self,
        module: Literal["scorer", "trainer"],
        name: str,
        options: ScorerOptions | TrainerOptions,
        cores: Sequence[int] | None = None,
        environment: Mapping[str, str | None] | None = None,
        log_name: str | None = None,
    ) -> Child:
        """Runs the module with the options; `options-NAME.toml` holds them and `log_name` gets what it prints.

        Args:
            cores: the only ones that it may use; None leaves the choice to the system.
            environment: variables set on top of ours; None takes one out.
            log_name: by default `NAME.log`.
        """
        log = self._folder / (log_name or f"{name}.log")
        with log.open("ab") as output:  # the trainer appends to its log too
            log_from = output.tell()
            process = start(
                module,
                options,
                self._folder / f"options-{name}.toml",
                output=output.fileno(),
                environment={"PYTHONUNBUFFERED": "1", **(environment or {})},
                dies_with_parent=True,
                cores=cores,
            )
        self._all.append(Child(name, process, log, log_from=log_from))
        return self._all[-1]


class StopSignals:
    """Collects Ctrl-C, SIGTERM and SIGHUP instead of dying of them, while the context is open. Main thread only.

    Attributes:
        received: the signals; one that comes within `SAME_SIGNAL_S` of another is taken for the same.
    """

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._received_at = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # under nohup
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received or now - self._received_at >= SAME_SIGNAL_S:
            self.received.append(signal.Signals(number))
            self._received_at = now


def await_end(children: Sequence[Child], within_s: float, *, tick: Callable[[], bool], every_s: float = 0.1) -> bool:
    """Whether all ended by themselves within the time.

    Args:
        tick: called now and then meanwhile; False gives up waiting.
    """
    deadline = time.monotonic() + within_s
    while any(child.is_running for child in children):
        if not tick() or time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def end_all(children: Sequence[Child], *, tick: Callable[[], bool] = lambda: True, within_s: float = TERM_S) -> None:
    """Asks all at once to end, then insists. `tick` as in `await_end`."""
    for child in children:
        child.terminate()
    await_end(children, within_s, tick=tick)
    for child in children:
        child.kill()


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one


def last_lines(path: Path, num: int, *, since: int = 0) -> list[str]:
    """The last lines of a log without empty ones, free of control codes; a progress bar's last state counts.

    Args:
        since: bytes at the beginning that are passed over.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(since, path.stat().st_size - LOG_END_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = (_ESCAPE.sub("", line.rstrip().rpartition("\r")[2]).rstrip() for line in text.split("\n"))
    return [line for line in lines if line][-num:]
