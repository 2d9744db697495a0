"""The sockets of one process, by channel: how they are made, guarded, replaced and closed.

Owned by the one thread of `common.transport`; before that starts, by whoever opens them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import zmq

from common.endpoints import bound_endpoint, claim_ipc_path, port_of
from common.errors import EndpointError
from common.inflow import Inflow
from common.security import Security, arm
from common.security.gate import Gate

Channel = Literal["control", "weights"]
CONTROL: Channel = "control"
WEIGHTS: Channel = "weights"

POLLIN = int(zmq.POLLIN)  # enums cost microseconds a frame
FrameLimits = int | Mapping[Channel, int]  # the largest frame in bytes, on every channel or by channel

RECEIVED = 256  # messages of one peer that wait here; more wait there, where they cost its memory
FAREWELL_MS = 300  # how long a GOODBYE may take to leave when the sockets close


class Sockets:
    """One socket for each channel, and what the thread that drives them looks up.

    Attributes:
        by_channel: the socket of each channel.
        channels: by socket, its channel, whether it is a ROUTER, and if it is one on tcp the gate and the inflow.
        inflow: watches what comes over tcp.
        polled: what to poll; the first is `wake_fd`.
    """

    def __init__(self, max_frame_bytes: FrameLimits, security: Security | None, wake_fd: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._security = security
        self._gate = security if isinstance(security, Gate) else None
        self._wake_fd = wake_fd
        self._context = zmq.Context()
        self._context.setsockopt(zmq.IO_THREADS, 2)  # one may be busy with a bucket while the other beats
        self._endpoints: dict[Channel, str] = {}
        self._locks: list[int] = []
        self.by_channel: dict[Channel, zmq.Socket[bytes]] = {}
        self.channels: dict[Any, tuple[Channel, bool, Gate | None, Inflow | None]] = {}
        largest = max_frame_bytes if isinstance(max_frame_bytes, int) else max(max_frame_bytes.values())
        self.inflow = Inflow(largest)
        self.polled: list[tuple[Any, int]] = [(wake_fd, POLLIN)]

    def bind(self, channel: Channel, endpoint: str) -> str:
        """Bind a ROUTER; returns the endpoint actually bound (tcp port 0 is chosen by the system).

        Raises:
            EndpointError: in use, not permitted, tcp that nothing guards, or a folder that others may enter.
        """
        if endpoint.startswith("ipc://"):
            self._locks.append(claim_ipc_path(Path(endpoint.removeprefix("ipc://"))))
        router = self._new_socket(zmq.ROUTER, channel, endpoint)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            router.bind(endpoint)
        except zmq.ZMQError as error:
            router.close(0)
            raise EndpointError(f"cannot listen on {endpoint}: {error.strerror}; choose another --listen") from error
        bound = bound_endpoint(endpoint, str(router.getsockopt_string(zmq.LAST_ENDPOINT)))
        self._open(channel, router, bound)
        if bound.startswith("tcp://"):
            self.inflow.watch(port_of(bound))
        if self._gate is not None and bound.startswith("tcp://"):
            self._gate.bound(router, bound)
        return bound

    def connect(self, channel: Channel, endpoint: str) -> None:
        """Connect a DEALER, replacing the channel's socket if there was one; the peer need not be there yet."""
        if channel in self.by_channel:
            self.by_channel.pop(channel).close(0)
        dealer = self._new_socket(zmq.DEALER, channel, endpoint)
        dealer.setsockopt(zmq.IMMEDIATE, 1)  # queue only for a connection that exists
        dealer.connect(endpoint)
        self._open(channel, dealer, endpoint)

    def _new_socket(self, kind: int, channel: Channel, endpoint: str) -> "zmq.Socket[bytes]":
        created = self._context.socket(kind)
        created.setsockopt(zmq.LINGER, 0)
        limit = self._max_frame_bytes  # of a frame, not a message
        created.setsockopt(zmq.MAXMSGSIZE, limit if isinstance(limit, int) else limit[channel])
        created.setsockopt(zmq.RCVHWM, RECEIVED)
        created.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
        created.setsockopt(zmq.RECONNECT_IVL, 50)
        created.setsockopt(zmq.RECONNECT_IVL_MAX, 1_000)
        created.setsockopt(zmq.IPV6, 1)
        if endpoint.startswith("tcp://"):
            try:
                arm(self._security, created, endpoint)
            except EndpointError:
                created.close(0)
                raise
        return created

    def connect_again(self, own: "zmq.Socket[bytes]") -> None:
        """Replace a DEALER by one with the keys of now."""
        channel = self.channels[own][0]
        self.connect(channel, self._endpoints[channel])

    def close(self) -> None:
        """Close everything, once last words have left or `FAREWELL_MS` are over."""
        for own in self.by_channel.values():
            own.close(FAREWELL_MS)
        self.by_channel.clear()
        if self._security is not None:
            self._security.close()
        self._context.term()
        for lock in self._locks:
            os.close(lock)

    def _open(self, channel: Channel, created: "zmq.Socket[bytes]", endpoint: str) -> None:
        """Takes it in; the tables stay the same objects, as the thread holds on to them."""
        self.by_channel[channel], self._endpoints[channel] = created, endpoint
        self.channels.clear()
        for name, own in self.by_channel.items():
            is_tcp = self._endpoints[name].startswith("tcp://")
            is_router = own.type == zmq.ROUTER
            is_open = is_tcp and is_router
            self.channels[own] = name, is_router, self._gate if is_open else None, self.inflow if is_open else None
        asked = [] if self._gate is None or self._gate.asked is None else [self._gate.asked]
        self.polled[:] = [(own, POLLIN) for own in (self._wake_fd, *self.by_channel.values(), *asked)]
