"""Starting this project's own processes and ending them, all of them and no others."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

from common.config import ScorerOptions, TrainerOptions, to_toml
from common.config.endpoint import from_here
from common.waiting import Wait

TERM_S = 10.0
KILL_S = 10.0
SAME_SIGNAL_S = 1.0  # a hang-up and what follows it, or a supervisor and its process group that are told together

# Becomes the child, once it is on its cores and the kernel has been asked to send it SIGTERM when its parent dies, in
# whatever way. A process of its own for it, as preexec_fn is unsafe beside threads; both survive the exec, and threads
# inherit the cores. argv: the parent's id or "", cores separated by commas or "", command.
_PREPARED = """
import os, sys
parent, cores = sys.argv[1:3]
if cores:
    os.sched_setaffinity(0, map(int, cores.split(",")))
if parent and sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG, SIGTERM = 1, 15
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(128 + SIGTERM)  # it died before the request
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


def start(
    module: Literal["scorer", "trainer", "run"],
    options: ScorerOptions | TrainerOptions,
    options_file: Path,
    *,
    output: IO[bytes] | int | None = None,
    environment: Mapping[str, str | None] | None = None,
    dies_with_parent: bool = False,
    cores: Sequence[int] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start `python -m scorer`, `python -m trainer` or `marginstream run` with resolved options.

    Args:
        options_file: written with the options and handed over as --config.
        output: where stdout and stderr go; None shares this process's.
        environment: variables set on top of this process's own; None takes one out.
        dies_with_parent: the child gets SIGTERM when the thread that calls this ends, also if this process is killed
            with -9. For a main thread. Linux only; elsewhere it has no effect.
        cores: the only ones that it may use; None leaves it those of this process.
    """
    options_file.write_text(to_toml(options.dump()))
    command = ["-m", *(("common.cli", "run") if module == "run" else (module,)), "--config", str(options_file)]
    if dies_with_parent or cores:
        parent = str(os.getpid()) if dies_with_parent else ""
        command = ["-I", "-S", "-c", _PREPARED, parent, ",".join(map(str, cores or ())), *command]
    variables = {**os.environ, **(environment or {})}
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={name: value for name, value in variables.items() if value is not None},
        start_new_session=True,  # Ctrl-C reaches the parent, which ends its children in order
    )


def end(process: "subprocess.Popen[bytes]", *, term_s: float = TERM_S) -> int:
    """Ask a child to end, then insist. Returns its exit code, negative for a signal; -9 also if the kernel holds it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(term_s)
        except subprocess.TimeoutExpired:
            process.kill()
            reaped(process)
    return -signal.SIGKILL if process.returncode is None else process.returncode


def reaped(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process that was killed is gone; one that the kernel holds is reported and left to it."""
    wait = Wait(
        f"process {process.pid} to end, which was killed", KILL_S, "the kernel holds it: a disk or a driver hangs"
    )
    try:
        process.wait(KILL_S)
    except subprocess.TimeoutExpired:
        wait.report()
        return False
    return True


def private_folder() -> "tempfile.TemporaryDirectory[str]":
    """A short-named folder with mode 0700 for ipc endpoints (their paths are limited to 100 bytes)."""
    root = "/tmp" if len(tempfile.gettempdir()) > 40 and Path("/tmp").is_dir() else None
    return tempfile.TemporaryDirectory(prefix="marginstream-", dir=root, ignore_cleanup_errors=True)


@contextlib.contextmanager
def local_scorers(options: TrainerOptions, connect: str, num: int) -> Iterator[None]:
    """Scorer processes on this machine for a trainer's options; they end with the block."""
    shared = {name: getattr(options, name) for name in ScorerOptions.model_fields if hasattr(options, name)}
    own = {"connect": from_here(connect), "config": None, "dry_run": False, "backend": options.entry.backend}
    own["metrics_port"] = None  # the trainer's
    scorer = ScorerOptions(**(shared | own))
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        for index in range(num):
            opened.callback(end, start("scorer", scorer, folder / f"scorer-{index}.toml"))
        yield
