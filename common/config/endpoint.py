"""The syntax of endpoints, checked before any socket exists.

`ipc://PATH` names a socket file on this host, `tcp://HOST:PORT` a port: of one interface where a trainer listens, of
the trainer's host where a scorer connects.
"""

import ipaddress
import re

# The kernel allows 107 bytes for a socket file; ZeroMQ and a second endpoint beside the first one take some.
MAX_IPC_PATH_BYTES = 100
MAX_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_NUMBER = re.compile(r"[0-9]*|0[xX][0-9A-Fa-f]*")


def check_listen(endpoint: str) -> str:
    """The endpoint itself; PORT may be `*` for any free one. ValueError says what would be right."""
    return _check(endpoint, any_port=True)


def check_connect(endpoint: str) -> str:
    """The endpoint itself; PORT is a number. ValueError says what would be right."""
    return _check(endpoint, any_port=False)


def _check(endpoint: str, *, any_port: bool) -> str:
    scheme, separator, rest = endpoint.partition("://")
    if not separator or scheme not in ("ipc", "tcp"):
        raise ValueError("must be ipc://PATH or tcp://HOST:PORT")
    if scheme == "ipc":
        _check_path(rest)
    else:
        _check_address(rest, any_port=any_port)
    return endpoint


def _check_path(path: str) -> None:
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError("must name a socket file: ipc://PATH")
    size = len(path.encode())
    if size > MAX_IPC_PATH_BYTES:
        raise ValueError(f"must have a path of at most {MAX_IPC_PATH_BYTES} bytes, not {size}; use a shorter folder")


def _check_address(address: str, *, any_port: bool) -> None:
    host, separator, port = address.rpartition(":")
    if not separator or not host:
        raise ValueError("must name host and port: tcp://HOST:PORT")
    if not (any_port and port == "*") and not (port.isdecimal() and 1 <= int(port) <= MAX_PORT):
        choice = ", or * for any free one" if any_port else ""
        raise ValueError(f"must end in a port from 1 to {MAX_PORT}{choice}")
    if _address(host) is None and not _is_name(host):
        raise ValueError("must name a host by its address (IPv6 in brackets) or name: tcp://HOST:PORT")
    if not any_port and is_on_all(f"tcp://{address}"):
        raise ValueError("must name the trainer's host: all interfaces are no address to connect to")


def is_loopback(endpoint: str) -> bool:
    """Whether a checked endpoint is tcp that no other machine can reach."""
    host = _host(endpoint)
    own = _address(host) if host is not None else None
    return host == "localhost" or (own is not None and own.is_loopback)


def is_on_all(endpoint: str) -> bool:
    """Whether a checked endpoint is tcp on every interface: 0.0.0.0 or [::]."""
    host = _host(endpoint)
    own = _address(host) if host is not None else None
    return own is not None and own.is_unspecified


def is_interface(endpoint: str) -> bool:
    """Whether a checked endpoint to listen on names an interface, such as eth0, in place of an address."""
    host = _host(endpoint)
    return host is not None and host != "localhost" and _address(host) is None


def from_here(endpoint: str) -> str:
    """Where a process on this machine connects: loopback, if the trainer listens on all interfaces."""
    if not is_on_all(endpoint):
        return endpoint
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return f"tcp://{'[::1]' if host.startswith('[') else '127.0.0.1'}:{port}"


def _host(endpoint: str) -> str | None:
    return endpoint.removeprefix("tcp://").rpartition(":")[0] if endpoint.startswith("tcp://") else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """What a host is as a number, IPv4 in IPv6's clothes as IPv4; None for a name."""
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        own = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if isinstance(own, ipaddress.IPv6Address):
        return (own.ipv4_mapped or own) if bracketed else None
    return own


def _is_name(host: str) -> bool:
    """Whether it is a name of a host or interface, and no old way to write an address: 0, 127.1 and 0x0 are ones."""
    return bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host.rpartition(".")[2])
