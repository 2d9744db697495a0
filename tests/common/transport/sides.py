"""Both ends of a connection, each an IOThread with a handler that records."""

import contextlib
import queue
import time
from collections.abc import Callable
from typing import Any

import zmq

from common.security import Security
from common.security.credentials import Insecure
from common.sockets import FrameLimits
from common.transport import CONTROL, Channel, IOThread

WITHIN_S = 10.0
MIB = 1 << 20
TCP = "tcp://127.0.0.1:0"


class Recorder:
    """A handler that keeps what came; `reply` runs on the I/O thread for each message."""

    def __init__(self) -> None:
        self.messages: queue.Queue[tuple[Channel, bytes, list[bytes]]] = queue.Queue()
        self.ticks: queue.Queue[float] = queue.Queue()
        self.reply: Callable[[Channel, bytes], None] = lambda channel, peer: None
        self.farewell: Callable[[], None] = lambda: None
        self.tick: Callable[[], None] = lambda: None

    def on_start(self, io: IOThread) -> None:
        self.io = io

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        self.messages.put((channel, peer, [bytes(frame) for frame in frames]))
        self.reply(channel, peer)

    def on_tick(self, now: float) -> None:
        self.ticks.put(now)
        self.tick()

    def on_stop(self) -> None:
        self.farewell()

    def next(self) -> tuple[Channel, bytes, list[bytes]]:
        return self.messages.get(timeout=WITHIN_S)


def call(io: IOThread, task: Callable[[], Any]) -> Any:
    """Run a task on the I/O thread; its result."""
    result: queue.Queue[Any] = queue.Queue()
    io.post(lambda: result.put(task()))
    return result.get(timeout=WITHIN_S)


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


class Side:
    """An IOThread with its recorder."""

    def __init__(
        self,
        tick_s: float = 0.02,
        max_frame_bytes: FrameLimits = 64 * MIB,
        security: Security | None = None,
        hold: Callable[[], None] = lambda: None,
    ) -> None:
        self.recorder = Recorder()
        self.io = IOThread(
            "test-io",
            self.recorder,
            max_frame_bytes=max_frame_bytes,
            tick_s=tick_s,
            security=security if security is not None else Insecure(),
            hold=hold,
        )

    def send(self, channel: Channel, frames: list[bytes], peer: bytes | None = None, *, track: bool = False) -> Any:
        return call(self.io, lambda: self.io.send(channel, frames, peer, track=track))


def trainer(opened: contextlib.ExitStack, endpoint: str, **settings: Any) -> tuple[Side, str]:
    side = Side(**settings)
    opened.callback(side.io.stop)
    bound = side.io.bind(CONTROL, endpoint)
    side.io.start()
    return side, bound


def scorer(opened: contextlib.ExitStack, endpoint: str, **settings: Any) -> Side:
    side = Side(**settings)
    opened.callback(side.io.stop)
    side.io.connect(CONTROL, endpoint)
    side.io.start()
    return side


def raw_dealer(opened: contextlib.ExitStack, endpoint: str | None, **options: int) -> "zmq.Socket[bytes]":
    """Connected, if there is an endpoint."""
    context = zmq.Context()
    opened.callback(context.term)
    dealer = context.socket(zmq.DEALER)
    opened.callback(dealer.close, 0)
    for name, value in options.items():
        dealer.setsockopt(getattr(zmq, name), value)
    if endpoint is not None:
        dealer.connect(endpoint)
    return dealer


def introduced(side: Side, dealer: "zmq.Socket[bytes]") -> bytes:
    """The routing id that a trainer gave to a peer."""
    dealer.send(b"hello")
    return side.recorder.next()[1]
