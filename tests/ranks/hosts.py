"""Hosts as network namespaces around one switch: a trainer's and any number of scorers'. Needs root, `ip` and `tc`."""

import os
import shutil
import subprocess
from typing import Self

import pytest

from tests.chaos.namespaces import WITHIN_S, run

NETWORK = "10.231.8"
TRAINER_ADDRESS = f"{NETWORK}.1"


class Hosts:
    """A context: leaving it removes the namespaces, and the cables with them.

    Attributes:
        trainer, scorers: names of namespaces.
    """

    def __init__(self, num_scorers: int) -> None:
        self.trainer = f"marginstream-{os.getpid()}-t"
        self.scorers = [f"marginstream-{os.getpid()}-s{number}" for number in range(num_scorers)]

    def __enter__(self) -> Self:
        if os.geteuid() or shutil.which("ip") is None:
            pytest.skip("network namespaces need root, and the command ip")
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"no network namespaces or no bridge here: {error.stderr.strip()}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        for name in (self.trainer, *self.scorers):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=WITHIN_S, check=False)

    def _make(self) -> None:
        for name in (self.trainer, *self.scorers):
            run("ip", "netns", "add", name)
            self._inside(name, "link", "set", "lo", "up")
        self._inside(self.trainer, "link", "add", "switch", "type", "bridge")
        self._inside(self.trainer, "address", "add", f"{TRAINER_ADDRESS}/24", "dev", "switch")
        self._inside(self.trainer, "link", "set", "switch", "up")
        for number, name in enumerate(self.scorers):
            port = f"port{number}"
            cable = ("link", "add", port, "netns", self.trainer, "type", "veth", "peer", "eth0", "netns", name)
            run("ip", *cable)
            self._inside(self.trainer, "link", "set", port, "master", "switch", "up")
            self._inside(name, "address", "add", f"{NETWORK}.{number + 2}/24", "dev", "eth0")
            self._inside(name, "link", "set", "eth0", "up")

    def _inside(self, name: str, *command: str) -> None:
        run("ip", "-n", name, *command)

    def cut(self, number: int) -> None:
        """Pull the cable of a scorer's host."""
        self._inside(self.trainer, "link", "set", f"port{number}", "down")

    def heal(self, number: int) -> None:
        self._inside(self.trainer, "link", "set", f"port{number}", "up")
