"""Two network namespaces joined by a cable that a test cuts, starves and repairs. Needs root, `ip` and `tc`."""

import os
import shutil
import subprocess
from typing import Self

import pytest

TRAINER_ADDRESS, SCORER_ADDRESS = "10.231.7.1", "10.231.7.2"
WITHIN_S = 20.0
ENTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(os.open("/run/netns/{name}", os.O_RDONLY), 0x40000000):
    raise OSError(ctypes.get_errno(), "cannot enter the namespace {name}")
"""
"""Code that a process runs first to live in a namespace."""


class Namespaces:
    """The trainer's and the scorer's. A context: leaving it removes both, and the cable with them."""

    def __init__(self) -> None:
        self.trainer, self.scorer = (f"marginstream-{os.getpid()}-{side}" for side in ("t", "s"))
        self._ends = {self.trainer: f"ms{os.getpid()}t", self.scorer: f"ms{os.getpid()}s"}

    def __enter__(self) -> Self:
        if os.geteuid() or shutil.which("ip") is None or shutil.which("tc") is None:
            pytest.skip("network namespaces need root, and the commands ip and tc")
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        for name in self._ends:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=WITHIN_S, check=False)

    def _make(self) -> None:
        for name in self._ends:
            run("ip", "netns", "add", name)
        one, other = self._ends.values()
        run("ip", "link", "add", one, "netns", self.trainer, "type", "veth", "peer", other, "netns", self.scorer)
        for name, address in ((self.trainer, TRAINER_ADDRESS), (self.scorer, SCORER_ADDRESS)):
            self.inside(name, "ip", "link", "set", "lo", "up")
            self.inside(name, "ip", "address", "add", f"{address}/30", "dev", self._ends[name])
            self.inside(name, "ip", "link", "set", self._ends[name], "up")

    def inside(self, name: str, *command: str) -> None:
        run("ip", "netns", "exec", name, *command)

    # -- what a test does to the cable --------------------------------------------------------------------------------

    def link_down(self) -> None:
        self.inside(self.scorer, "ip", "link", "set", self._ends[self.scorer], "down")

    def link_up(self) -> None:
        self.inside(self.scorer, "ip", "link", "set", self._ends[self.scorer], "up")

    def black_hole(self) -> None:
        """What the trainer sends goes nowhere, without a word."""
        self.inside(self.trainer, "ip", "route", "add", "blackhole", f"{SCORER_ADDRESS}/32")

    def no_black_hole(self) -> None:
        self.inside(self.trainer, "ip", "route", "del", "blackhole", f"{SCORER_ADDRESS}/32")

    def starve(self) -> None:
        """8 kB a second from the trainer on: a version of weights takes minutes."""
        bucket = ("tbf", "rate", "64kbit", "burst", "4kb", "latency", "200ms")
        self.inside(self.trainer, "tc", "qdisc", "add", "dev", self._ends[self.trainer], "root", *bucket)

    def feed(self) -> None:
        self.inside(self.trainer, "tc", "qdisc", "del", "dev", self._ends[self.trainer], "root")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=WITHIN_S)
