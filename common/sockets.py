"""The sockets of one process, by channel: how they are made, guarded, replaced and closed.

Owned by the one thread of `common.transport`; before that starts, by whoever opens them.
"""

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zmq

from common.config.endpoint import is_interface
from common.endpoints import bound_endpoint, claim_ipc_path, port_of
from common.errors import EndpointError
from common.inflow import FRAME_OVERHEAD_BYTES, Inflow
from common.outflow import Outflow
from common.receiving import Watcher
from common.security import Security, arm
from common.security.gate import Gate
from common.sparing_log import SparingLog

log = logging.getLogger(__name__)

Channel = str
CONTROL: Channel = "control"
WEIGHTS: Channel = "weights"

# ZeroMQ's threads: one for all that is small, the others for weights: encrypting a bucket holds no heartbeat up.
CORES_A_THREAD, MOST_WEIGHTS_THREADS = 8, 4
NUM_WEIGHTS_THREADS = max(1, min(MOST_WEIGHTS_THREADS, (os.cpu_count() or 1) // CORES_A_THREAD))
CONTROL_THREAD, WEIGHTS_THREADS = 1, ((1 << NUM_WEIGHTS_THREADS) - 1) << 1  # masks

POLLIN = int(zmq.POLLIN)  # enums cost microseconds a frame
FrameLimits = int | Mapping[Channel, int]  # the largest frame in bytes, on every channel or by kind of channel
MAX_SOCKETS = 8192  # three for each rank of a trainer: a connection, and two that watch its handshakes

RECEIVED = 256  # messages of one peer that wait here; more wait there, where they cost its memory
FAREWELL_MS = 300  # how long a GOODBYE may take to leave when the sockets close
LOG_EVERY_S = 10.0


def control_of(rank: int) -> Channel:
    """The channel on which a scorer talks to this rank of a trainer; rank 0's is `CONTROL`. All are of its kind."""
    return CONTROL if rank == 0 else f"{CONTROL}-{rank}"


class Sockets:
    """One socket for each channel, and what the thread that drives them looks up.

    Attributes:
        by_channel: the socket of each channel.
        channels: by socket, its channel, whether it is a ROUTER, if it is one on tcp the gate, and who watches the
            connections of a ROUTER: on tcp the inflow; on ipc, of the weights, the outflow.
        inflow: watches what comes over tcp.
        polled: what to poll; the first is `wake_fd`.
    """

    def __init__(self, max_frame_bytes: FrameLimits, security: Security | None, wake_fd: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._security = security
        self._gate = security if isinstance(security, Gate) else None
        self._wake_fd = wake_fd
        self._context = zmq.Context(io_threads=1 + NUM_WEIGHTS_THREADS)
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self._endpoints: dict[Channel, str] = {}
        self._locks: list[int] = []
        self._outdated: list[zmq.Socket[bytes]] = []  # to be replaced
        self._log = SparingLog(log, LOG_EVERY_S)
        self.by_channel: dict[Channel, zmq.Socket[bytes]] = {}
        self.channels: dict[Any, tuple[Channel, bool, Gate | None, Watcher | None]] = {}
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
            _bind(router, endpoint)
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
        """Connect a DEALER, replacing the channel's socket if there was one; the peer need not be there yet.

        Raises:
            EndpointError: tcp that nothing guards, an endpoint that cannot be, or no socket left to this process.
        """
        dealer = self._new_socket(zmq.DEALER, channel, endpoint)
        try:
            dealer.setsockopt(zmq.IMMEDIATE, 1)  # queue only for a connection that exists
            dealer.connect(endpoint)
        except zmq.ZMQError as error:
            dealer.close(0)
            raise EndpointError(f"cannot connect to {endpoint}: {error.strerror}") from error
        if channel in self.by_channel:
            self.by_channel[channel].close(0)
        self._open(channel, dealer, endpoint)

    def disconnect(self, channel: Channel) -> None:
        """Close a channel's socket, once its last words have left or `FAREWELL_MS` are over."""
        self.by_channel.pop(channel).close(FAREWELL_MS)
        del self._endpoints[channel]
        self._list()

    def _new_socket(self, kind: int, channel: Channel, endpoint: str) -> "zmq.Socket[bytes]":
        try:
            created = self._context.socket(kind)
        except zmq.ZMQError as error:
            raise EndpointError(f"no socket for {endpoint}: {error.strerror}; see ulimit -n") from error
        created.setsockopt(zmq.LINGER, 0)
        limits = self._max_frame_bytes
        limit = limits if isinstance(limits, int) else limits[channel.partition("-")[0]]
        # Of a frame, not a message; with keys ZeroMQ compares the box that a frame comes in, which is 33 bytes larger.
        created.setsockopt(zmq.MAXMSGSIZE, limit + FRAME_OVERHEAD_BYTES)
        created.setsockopt(zmq.AFFINITY, WEIGHTS_THREADS if channel == WEIGHTS else CONTROL_THREAD)
        created.setsockopt(zmq.RCVHWM, RECEIVED)
        created.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
        created.setsockopt(zmq.RECONNECT_IVL, 50)
        created.setsockopt(zmq.RECONNECT_IVL_MAX, 1_000)
        created.setsockopt(zmq.IPV6, 1)
        if endpoint.startswith("tcp://"):
            try:
                arm(self._security, created, endpoint)
            except zmq.ZMQError as error:
                created.close(0)
                raise EndpointError(f"no socket for {endpoint}: {error.strerror}; see ulimit -n") from error
            except EndpointError:
                created.close(0)
                raise
        return created

    def connect_again(self, outdated: Iterable["zmq.Socket[bytes]"]) -> None:
        """Replace DEALERs by ones with the keys of now; one that cannot be is tried again at the next call."""
        waiting, self._outdated = dict.fromkeys([*self._outdated, *outdated]), []
        for own in waiting:
            if own not in self.channels:
                continue  # replaced meanwhile
            channel = self.channels[own][0]
            try:
                self.connect(channel, self._endpoints[channel])
            except EndpointError as error:
                self._outdated.append(own)
                self._log.say("again", f"the connection that there was stays: {error}; this is tried again")

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
        self.by_channel[channel], self._endpoints[channel] = created, endpoint
        self._list()

    def _list(self) -> None:
        """After a change; the tables stay the same objects, as the thread holds on to them."""
        self.channels.clear()
        for name, own in self.by_channel.items():
            is_tcp = self._endpoints[name].startswith("tcp://")
            is_router = own.type == zmq.ROUTER
            is_open = is_tcp and is_router
            watcher = self.inflow if is_open else Outflow() if is_router and name == WEIGHTS else None
            self.channels[own] = name, is_router, self._gate if is_open else None, watcher
        asked = [] if self._gate is None or self._gate.asked is None else [self._gate.asked]
        self.polled[:] = [(own, POLLIN) for own in (self._wake_fd, *self.by_channel.values(), *asked)]


def _bind(router: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Of an interface that is named, take the IPv4 address if it has one.

    With IPV6 set ZeroMQ takes an IPv6 one if there is any, such as the link-local one that nearly every interface has,
    and IPv4 peers knock in vain.
    """
    if is_interface(endpoint):
        router.setsockopt(zmq.IPV6, 0)
        try:
            router.bind(endpoint)
            return
        except zmq.ZMQError as error:
            if error.errno != errno.ENODEV:
                raise
            router.setsockopt(zmq.IPV6, 1)
    router.bind(endpoint)
