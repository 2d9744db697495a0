"""Where sockets meet: ipc paths claimed for one process, and beside a control channel weights and other ranks."""

import os
import stat
import urllib.parse
from pathlib import Path

from common.errors import EndpointError
from common.locks import try_lock

MAX_IPC_PATH_BYTES = 100  # the system's limit on a socket's path, less what a rank and a channel put behind it


def claim_ipc_path(path: Path) -> int:
    """Lock an ipc path for this process: its folder is made private (0700) and a second claim is refused.

    ZeroMQ unlinks an existing socket file and binds again, so two trainers would silently steal each other's scorers.

    Returns:
        A file descriptor that holds the lock until it is closed.
    """
    if len(os.fsencode(path)) > MAX_IPC_PATH_BYTES:
        raise EndpointError(f"ipc path {path} is longer than {MAX_IPC_PATH_BYTES} bytes; choose a shorter --listen")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        folder = path.parent.stat()
    except OSError as error:
        raise EndpointError(f"cannot make folder {path.parent} for the ipc endpoint: {error.strerror}") from error
    if folder.st_uid != os.getuid() or stat.S_IMODE(folder.st_mode) & 0o077:
        raise EndpointError(
            f"ipc folder {path.parent} must be yours alone, mode 0700 (others could take the endpoint); "
            f"choose a folder of its own, for example ipc://{path.parent}/marginstream/{path.name}"
        )
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not try_lock(lock):
        os.close(lock)
        raise EndpointError(f"ipc://{path} is in use by another trainer; choose another --listen")
    return lock


def weights_endpoint(control_endpoint: str, weights_port: int) -> str:
    """The weights channel's endpoint beside a control endpoint: same host with `weights_port`, or path + '.w'."""
    if control_endpoint.startswith("ipc://"):
        return control_endpoint + ".w"
    host = control_endpoint.removeprefix("tcp://").rpartition(":")[0]
    return f"tcp://{host}:{weights_port}"


def rank_endpoint(control_endpoint: str, rank: int, address: str | None = None) -> str:
    """The control endpoint of another rank of a trainer.

    Args:
        control_endpoint: rank 0's; over ipc the other's has its path with the rank's number.
        address: over tcp, HOST:PORT as rank 0 names it.
    """
    if control_endpoint.startswith("ipc://"):
        return f"{control_endpoint}-{rank}"
    assert address is not None, "ranks on tcp are named"
    return f"tcp://{address}"


def bound_endpoint(asked: str, reported: str) -> str:
    """Where scorers connect: the address asked for, or the interface's, with the port that the system chose.

    Args:
        reported: by ZeroMQ; with IPV6 set, 127.0.0.1 is [::ffff:127.0.0.1] there.
    """
    if not asked.startswith("tcp://"):
        return reported
    host = asked.removeprefix("tcp://").rpartition(":")[0]
    if host[0].isalpha() and host != "localhost":
        host = reported.removeprefix("tcp://").rpartition(":")[0]
        host = host.strip("[]").removeprefix("::ffff:") if host.startswith("[::ffff:") else host
    return f"tcp://{host}:{reported.rpartition(':')[2]}"


def port_of(endpoint: str) -> int:
    """Port of a bound tcp endpoint; 0 for ipc."""
    return (urllib.parse.urlsplit(endpoint).port or 0) if endpoint.startswith("tcp://") else 0
