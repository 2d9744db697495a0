"""Many synthetic scorers in few processes: `python -m tests.bench.crowd`, told what to do through stdin, line by line.

Of a scorer everything is real but the scoring: each has its link, session, sockets, heartbeats, leases and weights, and
the loop of `scorer.loop` in a thread of its own. Several share an interpreter, which a scorer that sleeps hardly needs.
`cpu` answers with the seconds of a core that all of them used so far.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from common.config import ScorerOptions
from scorer.backend import SyntheticBackend
from scorer.link import Link
from scorer.loop import hello_of, serve

PER_PROCESS = 16


class Crowd:
    """Talks to the processes of a crowd."""

    def __init__(self, processes: "list[subprocess.Popen[str]]") -> None:
        self._processes = processes

    @property
    def cpu_s(self) -> float:
        """Seconds of a core that the scorers used."""
        return sum(float(_asked(process, "cpu")) for process in self._processes)

    def stand_still(self) -> None:
        """Until `go_on`: no heartbeats either."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def open_crowd(endpoint: str, num: int, *, chunk_s: float, core: int | None) -> Iterator[Crowd]:
    """That many scorers, each of which needs `chunk_s` for a chunk; all on one core. They join within seconds."""
    from common.devices import pinned  # imported here: the scorers need no torch

    with contextlib.ExitStack() as opened:
        processes = []
        for first in range(0, num, PER_PROCESS):
            options = {"num": min(PER_PROCESS, num - first), "connect": endpoint, "chunk_s": chunk_s}
            with pinned(core):
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.bench.crowd"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            assert process.stdin is not None
            assert process.stdout is not None
            opened.callback(process.stdout.close)
            opened.callback(process.wait)
            opened.callback(process.stdin.close)  # its end of the commands ends the scorers
            process.stdin.write(json.dumps(options) + "\n")
            process.stdin.flush()
            processes.append(process)
        crowd = Crowd(processes)
        opened.callback(crowd.go_on)
        yield crowd


def _asked(process: "subprocess.Popen[str]", command: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    if hasattr(os, "SCHED_IDLE"):  # they stand for other hosts: what is left of this one
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    given = json.loads(sys.stdin.readline())
    options = ScorerOptions(
        connect=given["connect"], backend="synthetic", synthetic_backend={"chunk_s": given["chunk_s"]}
    )
    with contextlib.ExitStack() as opened:
        for _ in range(given["num"]):
            opened.enter_context(_scorer(options))
        for _ in sys.stdin:
            print(time.process_time(), flush=True)


@contextlib.contextmanager
def _scorer(options: ScorerOptions) -> Iterator[None]:
    """A scorer at work; it stops with the block, or when its trainer ends."""
    backend = SyntheticBackend(options)
    link = Link(
        options.connect,
        hello_of(options, backend),
        connect_s=options.connect_s,
        check_manifest=backend.check_manifest,
        wants_weights=backend.wants_weights,
    )
    with link:
        worker = threading.Thread(target=serve, args=(link, backend))
        worker.start()
        try:
            yield
        finally:
            link.stop("enough")
            worker.join()


if __name__ == "__main__":
    main()
