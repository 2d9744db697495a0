"""A run of half an hour, and what memory its processes use the while: `python -m tests.soak --minutes 30` (make soak).

A trainer and its scorers train with everything on that a run has by default: pushes, audits, evaluations, checkpoints,
TensorBoard. One of the scorers is killed and started anew now and then, and peers come and go. Prints a line every half
minute, and one of JSON at the end: for each process that lived through it all, the slope of its memory after the first
minutes in MiB per 10 minutes, of which 2 are allowed.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common.environment import describe_environment
from tests.service.peers import HandMadeScorer, hello
from tests.service.processes import Process, Processes, assert_balanced
from tests.soak.memory import memory_mib, slope_per_10_min

DATA = ("--data", "digits")
SELECTING = ("--selection.warmup-fraction", "0", "--selection.anneal-fraction", "0")
RUN = (*DATA, *SELECTING, "--steps", "100000000", "--checkpoint.every-s", "60")
EVERY_S = 2.0
SAY_EVERY_S = 30.0
GUEST_EVERY_S = 30.0
MOST_MIB = 2.0
PEER = {"backend": "synthetic", "fingerprint": {}, "num_samples": 0, "num_classes": 0}


class Fresh:
    """Starts interpreters of their own: what a fork of another process shares with it would blur what is measured."""

    def start(self, arguments: list[str], folder: Path, output: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, *arguments]
        with output.open("wb") as log:
            return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--settle-minutes", type=float, help="not counted; by default 5, or a third of a short run")
    arguments = parser.parse_args()
    settle_s = 60 * (arguments.settle_minutes or min(5.0, arguments.minutes / 3))
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder), Fresh()) as processes:  # type: ignore[arg-type]
        result = soak(processes, 60 * arguments.minutes, settle_s)
    say(json.dumps(result | {"environment": describe_environment()}))
    return int(max(result["rss_mib_per_10_min"].values()) > MOST_MIB)


def soak(processes: Processes, seconds: float, settle_s: float) -> dict[str, Any]:
    """Fails if a process ends before its time or the account does not balance."""
    endpoint = processes.endpoint()
    trainer = processes.start("trainer", "-m", "trainer", "--out", "out", "--threads", "1", *RUN, "--listen", endpoint)
    watched = {"trainer": trainer, "scorer": processes.scorer("scorer", endpoint, *DATA)}
    guest = processes.scorer("guest-0", endpoint, *DATA)
    processes.reaches("out", 1)
    started = time.monotonic()
    times: list[float] = []
    rss: dict[str, list[float]] = {name: [] for name in watched}
    anonymous: dict[str, list[float]] = {name: [] for name in watched}
    num_guests = said = 0
    while (now := time.monotonic() - started) < seconds:
        times.append(now)
        for name, process in watched.items():
            assert not process.has_ended, f"{name} ended:\n{process.output}"
            in_all, own = memory_mib(process.pid)
            rss[name].append(in_all)
            anonymous[name].append(own)
        if now >= num_guests * GUEST_EVERY_S:
            num_guests += 1
            guest = change_guests(processes, endpoint, guest, num_guests)
        if now >= said * SAY_EVERY_S:
            said += 1
            sizes = ", ".join(f"{name} {sizes[-1]:.1f} MiB" for name, sizes in rss.items())
            say(f"{now:5.0f} s, step {processes.step('out')}: {sizes}")
        time.sleep(EVERY_S)
    trainer.send(signal.SIGTERM)
    code = trainer.code()
    assert code == 128 + signal.SIGTERM, f"the trainer ended with {code}:\n{trainer.output}"
    summary = processes.summary("out")
    assert_balanced(summary)
    return {
        "minutes": seconds / 60,
        "steps": summary["steps"],
        "accuracy": summary["accuracy"],
        "guests": num_guests,
        "leases": summary["leases"],
        "events": summary["events"],
        "rss_mib_per_10_min": {name: slope_per_10_min(times, sizes, settle_s) for name, sizes in rss.items()},
        "anonymous_mib_per_10_min": {
            name: slope_per_10_min(times, sizes, settle_s) for name, sizes in anonymous.items()
        },
        "rss_mib_last": {name: sizes[-1] for name, sizes in rss.items()},
    }


def change_guests(processes: Processes, endpoint: str, guest: Process, number: int) -> Process:
    """The second scorer is killed and another one takes its place, and a peer looks in."""
    guest.end()
    with HandMadeScorer(endpoint) as peer:
        peer.say(hello(**PEER))
    return processes.scorer(f"guest-{number}", endpoint, *DATA)


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
