"""Ranks come together: those of one life of their group, in a store that may remember earlier ones.

torchrun keeps its store when it starts a group again: what a rank of an earlier life wrote there, such as the address
at which it could be reached, would be taken for what the one in its place writes now.

    every rank:  draws a name for this life of its own and writes it
    rank 0:      writes which names it sees, again and again, and its own as that of the group
    every rank:  sees its name among them, so this is of a rank 0 that lives: says so, and takes the group's name
    rank 0:      has heard that from all of them
"""

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # documented, not in its __all__
from torch.distributed.rendezvous import rendezvous

from common.errors import RankLost
from trainer.ranks.environment import is_one_host, num_ranks
from trainer.ranks.environment import rank as number_of_rank
from trainer.ranks.group import ALONE, SILENCE_S, Group, in_a_line, raise_if_lost

JOIN_S = 300.0  # for all ranks to be started
POLL_S = 0.05
PLACE = "marginstream"


@contextmanager
def joined_group() -> Iterator[Group]:
    """The group that the environment describes, joined and left again; `ALONE` where it describes none.

    What the ranks say to each other goes through gloo; gradients find a way of their own, see `Group.wrap`.

    Raises:
        RankLost: not all ranks came within `JOIN_S`, or one of them is gone.
        ConfigError: the environment makes no sense.
    """
    size, rank = num_ranks(), number_of_rank()
    if size == 1:
        yield ALONE
        return
    if is_one_host():  # what they say is for nobody else to hear
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    try:
        store, rank, size = _met(rank, size)
        own = PrefixStore(name_of_this_life(store, rank, size, JOIN_S), store)
        dist.init_process_group("gloo", store=own, rank=rank, world_size=size, timeout=timedelta(seconds=SILENCE_S))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise RankLost(f"not all {size} trainer ranks came together: {in_a_line(error)}") from error
    group = Group.current()
    try:
        yield group
    except RuntimeError as error:
        raise_if_lost(group, error)
        raise
    group.await_all()
    dist.destroy_process_group()  # not after an error: it may wait for ranks that no longer answer


def _met(rank: int, size: int) -> tuple[Any, int, int]:
    """The store of torch.distributed at which ranks meet, this rank and the number of them."""
    within = timedelta(seconds=JOIN_S)
    if dist.is_torchelastic_launched() or not is_one_host():
        store, rank, size = next(rendezvous("env://", timeout=within))
        return store, rank, size
    # Nothing else has opened one. Left to itself, torch would open it to all networks.
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank:
        return TCPStore(address, port, size, is_master=False, timeout=within), rank, size
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        here.bind((address, port))
        listening = here.detach()  # the store closes it
    return TCPStore(address, port, size, is_master=True, timeout=within, master_listen_fd=listening), rank, size


class Store(Protocol):
    """What torch.distributed has for this; none of it waits."""

    def set(self, key: str, value: str, /) -> None: ...

    def get(self, key: str, /) -> bytes: ...

    def check(self, keys: list[str], /) -> bool: ...


def name_of_this_life(store: Store, rank: int, size: int, within_s: float) -> str:
    """A name that the ranks of this life of a group share, and no earlier one had.

    Args:
        within_s: seconds in which all of them have to come.

    Raises:
        RankLost: some did not; names them.
    """
    own, deadline = secrets.token_hex(8), time.monotonic() + within_s
    store.set(f"{PLACE}: name of {rank}", own)
    while True:
        group, missing = _led(store, own, size) if rank == 0 else _followed(store, own, rank)
        if group is not None:
            return group
        if time.monotonic() > deadline:
            which = ", ".join(map(str, missing))
            raise RankLost(f"rank {rank} waited {within_s:.0f} s for trainer ranks that did not come: {which}")
        time.sleep(POLL_S)


def _led(store: Store, own: str, size: int) -> tuple[str | None, list[int]]:
    """As rank 0. Gives the group's name, or None, and the ranks that have not answered."""
    names = [_read(store, f"{PLACE}: name of {rank}") for rank in range(size)]
    store.set(f"{PLACE}: group", json.dumps([own, *names]))
    missing = [rank for rank in range(1, size) if _read(store, f"{PLACE}: answer of {rank}") != own]
    return None if missing else own, missing


def _followed(store: Store, own: str, rank: int) -> tuple[str | None, list[int]]:
    """As another rank; likewise."""
    said = _read(store, f"{PLACE}: group")
    if said is None:
        return None, [0]
    group, *names = json.loads(said)
    if rank >= len(names) or names[rank] != own:
        return None, [0]
    store.set(f"{PLACE}: answer of {rank}", group)
    return str(group), []


def _read(store: Store, key: str) -> str | None:
    return store.get(key).decode() if store.check([key]) else None
