"""Where the ranks of a run listen: rank 0 as it was told, the others beside it; and what scorers are told of them."""

import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.config.endpoint import is_on_all
from common.endpoints import rank_endpoint
from common.errors import ConfigError, EndpointError, ProtocolError
from common.protocol.addresses import check_addresses
from trainer.ranks.group import Group

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
REMEDY = "with ranks on several hosts name an interface that each of them has: --listen tcp://eth0:PORT, with --keys"


def check_listen(group: Group, listen: str | None) -> None:
    """Raise ConfigError for an endpoint at which scorers could find rank 0 and none of the others."""
    if group.size > 1 and listen is not None and is_on_all(listen):
        raise ConfigError(
            f"--listen {listen}: scorers are told where each of {group.size} trainer ranks is, and all interfaces are "
            "no address; name one, as tcp://eth0:PORT"
        )


class Met(NamedTuple):
    """What came of it.

    Attributes:
        own: the endpoint of this rank; first: of rank 0, at which people have scorers connect.
        ranks: HOST:PORT of ranks 1, 2, …, for rank 0 to hand out over tcp; else ().
    """

    own: str
    first: str
    ranks: tuple[str, ...] = ()


def bound_together(group: Group, listen: str | None, bind: Callable[[str], str]) -> Met:
    """Binds the control channels of all ranks; each of them calls this once, before it answers anybody.

    Args:
        listen: where rank 0 listens; the others use its host or interface, with a port that the system chooses, and
            over ipc need not know its path.
        bind: binds an endpoint; returns the one that was bound.

    Raises:
        EndpointError: this rank cannot bind.
        EndedElsewhere: another one cannot.
    """
    own = ""
    with group.together():
        if group.is_first:
            assert listen is not None, "rank 0 knows where it listens"
            own = bind(listen)
    if group.size == 1:
        return Met(own, own)
    first, place = group.share((own, _place_of(own)))
    with group.together():
        if not group.is_first:
            own = _bound_beside(first, place, listen, group.rank, bind)
            log.info("rank %d listens at %s, as rank 0 tells scorers", group.rank, own)
    endpoints = group.gather(own)
    with group.together():
        return Met(own, first, _handed_out(endpoints) if group.is_first else ())


def _bound_beside(first: str, place: str, listen: str | None, rank: int, bind: Callable[[str], str]) -> str:
    """As `bind`, for a rank that was told rank 0's endpoint and its place."""
    if first.startswith("ipc://"):
        if _place_of(first) != place:
            raise EndpointError(
                f"trainer rank {rank} on {platform.node()} is on another host than rank 0, which listens at {first}, a "
                f"file; {REMEDY}"
            )
        return bind(rank_endpoint(first, rank))
    host = (listen or first).removeprefix("tcp://").rpartition(":")[0]
    try:
        return bind(f"tcp://{'127.0.0.1' if host == 'localhost' else host}:*")  # scorers look up no names
    except EndpointError as error:
        raise EndpointError(f"trainer rank {rank} on {platform.node()}: {error}; {REMEDY}") from error


def _place_of(endpoint: str) -> str:
    """Tells the host of an ipc endpoint, and the file there, from all others; "" for tcp, or where there is none."""
    if not endpoint.startswith("ipc://"):
        return ""
    try:
        host = BOOT_ID.read_text().strip()
    except OSError:
        host = platform.node()
    try:
        found = os.stat(endpoint.removeprefix("ipc://"))
    except OSError:
        return f"{host} without it"
    return f"{host} {found.st_dev} {found.st_ino}"


def _handed_out(endpoints: list[str]) -> tuple[str, ...]:
    """What WELCOME says of ranks 1, 2, …; over ipc their paths follow from rank 0's."""
    addresses = tuple(endpoint.removeprefix("tcp://") for endpoint in endpoints[1:] if endpoint.startswith("tcp://"))
    try:
        check_addresses("trainer ranks", addresses)
    except ProtocolError as error:
        raise EndpointError(f"{error}; give --listen the address of an interface, or its name") from error
    return addresses
