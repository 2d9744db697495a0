"""The syntax of endpoints, checked before any socket exists.

`ipc://PATH` names a socket file on this host, `tcp://HOST:PORT` a port on its loopback interface.
"""

import ipaddress

# The kernel allows 107 bytes for a socket file; ZeroMQ and a second endpoint beside the first one take some.
MAX_IPC_PATH_BYTES = 100
MAX_PORT = 65535


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
    if not _is_loopback(host):
        raise ValueError(
            "must stay on this host: tcp beyond loopback needs keys and is not available; "
            "use tcp://127.0.0.1:PORT or ipc://PATH"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        return ipaddress.ip_address(host[1:-1] if bracketed else host).is_loopback
    except ValueError:
        return False
