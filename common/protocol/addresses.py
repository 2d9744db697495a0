"""Where the other ranks of a trainer listen, as rank 0 tells scorers: numbers of hosts, nothing to look up."""

import ipaddress
import re
from typing import Annotated

from msgspec import Meta

from common.errors import ProtocolError
from common.protocol.limits import MAX_ADDRESS, MAX_RANKS
from common.protocol.values import check_distinct

Addresses = Annotated[tuple[Annotated[str, Meta(max_length=MAX_ADDRESS)], ...], Meta(max_length=MAX_RANKS - 1)]

_FORM = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[1-9][0-9]{0,4})")


def check_addresses(name: str, addresses: tuple[str, ...]) -> None:
    """Raises ProtocolError unless each is HOST:PORT that can be connected to, and no two are the same.

    HOST is a numeric IPv4 address or an IPv6 address in brackets, of one host: neither of all nor of many.
    """
    check_distinct(name, tuple([_parsed(name, address) for address in addresses]))


def _parsed(name: str, address: str) -> tuple[str, int]:
    """Host and port; a host has one form, however it was written."""
    found = _FORM.fullmatch(address)
    host = None if found is None else _host(found["six"], found["four"])
    port = 0 if found is None else int(found["port"])
    if host is None or host.is_unspecified or host.is_multicast or not 1 <= port <= 65535:
        raise ProtocolError(
            f"{name} must be HOST:PORT with the number of one host, IPv6 in brackets, and a port from 1 to 65535, "
            f"got {address!r:.100}"
        )
    return str(host), port


def _host(six: str | None, four: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        if six is None:
            return ipaddress.IPv4Address(four or "")
        own = ipaddress.IPv6Address(six)
    except ValueError:
        return None
    return own.ipv4_mapped or own
