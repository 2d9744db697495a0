"""Trainer ranks as processes of their own, told of each other as torchrun tells them."""

import socket

from tests.service.processes import QUICK, Process, Processes

TRAINER = """
import os, sys
os.environ.update({environment})
from trainer.__main__ import main
raise SystemExit(main())
"""


def ranks(processes: Processes, out: str, *flags: str, size: int = 2, first: str = "") -> list[Process]:
    """The ranks of one run, with equal options.

    Args:
        first: code that each of them runs before all else.
    """
    told = ("--out", out, *QUICK, *flags)
    port = free_port()
    return [
        processes.start(f"trainer-{out}-{rank}", "-c", first + rank_code(rank, size, port), *told)
        for rank in range(size)
    ]


def rank_code(rank: int, size: int, port: int) -> str:
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return TRAINER.format(environment={name: str(value) for name, value in environment.items()})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
