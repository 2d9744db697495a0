"""Sockets and the one thread that owns them. Moves frames; never looks inside a message.

A process has one `IOThread`. It owns every socket of the process, polls them, and calls its handler; nothing else ever
touches a socket. Other threads hand it work with `post`, which never blocks.

Two channels, each a ROUTER on the trainer and a DEALER on the scorer: CONTROL for small messages, WEIGHTS for buckets,
so that a large reply never stands in front of a heartbeat. A scorer has a control channel for each rank of its trainer.

Hazards, as met: PUB with CONFLATE keeps one frame of a multipart message; PUSH loses accepted messages with its peer;
a ROUTER drops silently what it cannot route unless ROUTER_MANDATORY is set; a peer that reconnects with a fixed
identity is not heard, so identities are ZeroMQ's own; a high-water mark is not flow control (the kernel's and
ZeroMQ's buffers hold hundreds of messages behind a mark of 1); binding an ipc path that is in use steals it silently;
a DEALER with IMMEDIATE drops what it received last if its peer closes at once, so last words wait for their answer.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

import zmq

from common.mailbox import Mailbox
from common.portions import Portions
from common.receiving import receive
from common.scheduling import give_way
from common.security import Security
from common.security.gate import Gate
from common.sending import Frames, send
from common.sockets import CONTROL as CONTROL
from common.sockets import WEIGHTS as WEIGHTS
from common.sockets import Channel as Channel
from common.sockets import FrameLimits, Sockets
from common.waiting import Wait, joined, reported

TICK_S, STALLED_S, CATCH_UP_S, STUCK_S = 0.1, 1.0, 2.0, 30.0
IDLE_S = 0.0002  # without work: there is no backlog


class Handler(Protocol):
    """What an IOThread drives. Every method runs on the I/O thread and must not block."""

    def on_start(self, io: "IOThread") -> None: ...

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None: ...

    def on_tick(self, now: float) -> None: ...

    def on_stop(self) -> None: ...


class IOThread:
    """Owns the sockets of a process. Open before `start`; `send` only on the thread itself; `post` from anywhere.

    `post(task)` has `task` run on this thread soon and never blocks.

    Args:
        security: what guards tcp; without it only ipc can be opened.
        gives_way: to a thread that computes on the same core: what a wake-up interrupts there costs more than the few
            milliseconds for which a message then waits.
        hold: called when there is work after a while without any, before it is done; may take milliseconds.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        *,
        max_frame_bytes: FrameLimits,
        tick_s: float = TICK_S,
        security: Security | None = None,
        gives_way: bool = False,
        hold: Callable[[], None] = lambda: None,
    ) -> None:
        self._handler = handler
        self._gives_way, self._hold = gives_way, hold
        self._tick_s = tick_s
        self._security = security
        self._gate = security if isinstance(security, Gate) else None
        self._mailbox = Mailbox()
        self.post = self._mailbox.post
        self._own = Sockets(max_frame_bytes, security, self._mailbox.wake_fd)
        self.events = self._own.inflow.events
        self._sockets, self._channels, self._polled = self._own.by_channel, self._own.channels, self._own.polled
        self._stopping = self._is_reported = False
        self._next_tick = 0.0
        self._portions = Portions()
        self._ticked_at = self._done_at = time.monotonic()
        self.alive = False  # from `start` until the thread has closed its sockets; any thread reads it
        self.error: BaseException | None = None
        self.busy_s = 0.0  # time this thread spent working rather than polling
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # -- opening ------------------------------------------------------------------------------------------------------

    def bind(self, channel: Channel, endpoint: str) -> str:
        """Bind a ROUTER; returns the endpoint actually bound. See `Sockets.bind`."""
        return self._own.bind(channel, endpoint)

    def connect(self, channel: Channel, endpoint: str) -> None:
        """Connect a DEALER, replacing the channel's socket if there was one; the peer need not be there yet."""
        self._own.connect(channel, endpoint)

    def disconnect(self, channel: Channel) -> None:
        """Close a channel that was connected, once its last words have left. On the I/O thread only."""
        self._own.disconnect(channel)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.alive = True
        try:
            self._thread.start()
        except RuntimeError:  # no thread is to be had
            self.alive = False
            raise

    def stop(self, timeout_s: float = 5.0) -> None:
        """Run what was posted, call `on_stop`, close everything. Safe to call twice."""
        if self._thread.ident is None:
            self._close()
            return
        self._stopping = True
        self.post(lambda: None)  # wakes it
        joined(self._thread, Wait(f"the thread {self._thread.name} to close its sockets", timeout_s))

    @property
    def age_s(self) -> float:
        """Seconds since the last tick: large where a handler hangs. Any thread."""
        return time.monotonic() - self._ticked_at

    def check(self) -> None:
        """Have the log say, once, what a handler is at that never returns. Any thread."""
        if self.age_s > STUCK_S and self.alive and not self._is_reported:
            self._is_reported = True
            reported(f"the thread {self._thread.name} has not come round for {self.age_s:.0f} s: nobody is heard")

    def tick_within(self, seconds: float) -> None:
        """Have the next tick come sooner. On the I/O thread only, also in a tick."""
        self._next_tick = min(self._next_tick, time.monotonic() + seconds)

    def spread(self, portion: Callable[[], bool]) -> None:
        """Have a long piece of work done in portions: one now, and one every few milliseconds until it returns False.

        In one piece it would keep the interpreter from a thread that computes, for milliseconds. On the I/O thread
        only; replaces what was being spread before.
        """
        self._portions.begin(portion)

    def rest(self, seconds: float) -> None:
        """Have this thread do nothing for a moment, which does not count as work. On the I/O thread only."""
        time.sleep(seconds)
        self.busy_s -= seconds

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(
        self, channel: Channel, frames: Frames, peer: bytes | None = None, *, track: bool = False
    ) -> "zmq.MessageTracker | bool | None":
        """See `common.sending.send`; False also if the peer's key was taken off the list. On the I/O thread only."""
        if self._gate is not None and peer is not None and self._gate.has_lost(peer):
            return False
        return send(self._sockets[channel], frames, peer, track=track)

    def receive_until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        """Go on without ticks until `holds()` or the time is over. For a handler's `on_stop`: answers to last words."""
        deadline = time.monotonic() + timeout_s
        while not holds() and (left_s := deadline - time.monotonic()) > 0:
            self._serve(left_s)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._gives_way:
                give_way()
            self._handler.on_start(self)
            self._loop()
            self._handler.on_stop()
        except BaseException as error:
            self.error = error
            raise
        finally:
            try:
                self._close()
            finally:
                self.alive = False

    def _loop(self) -> None:
        self._next_tick = time.monotonic()
        while True:
            started = self._serve(self._next_tick - time.monotonic())
            if started >= self._next_tick + STALLED_S:
                started = self._catch_up(started)
            if started >= self._next_tick:
                self._next_tick = started + self._tick_s
                self._ticked_at = started
                self._tick(started)
            self.busy_s += time.monotonic() - started
            if self._stopping and not self._mailbox:
                return

    def _catch_up(self, now: float) -> float:
        """This thread stood still: read what came meanwhile before a tick takes those who sent it for silent."""
        deadline = now + CATCH_UP_S
        while now < deadline and zmq.zmq_poll(self._polled, 0):
            now = self._serve(0.0)
        return now

    def _tick(self, now: float) -> None:
        if self._security is not None:
            self._own.connect_again(self._security.tick(now))
        self._own.inflow.tick(now)
        self._handler.on_tick(now)

    def _serve(self, timeout_s: float) -> float:
        """Wait for work and do it: what was posted, then one message of each socket. Returns when the wait was over."""
        timeout_ms = max(0, int(self._portions.within(timeout_s) * 1000) + 1)
        polled = zmq.zmq_poll(self._polled, timeout_ms)  # the mailbox's descriptor first
        started = time.monotonic()
        if started - self._done_at > IDLE_S:
            self._hold()
            started = time.monotonic()
        woken = bool(polled) and polled[0][0] == self._mailbox.wake_fd
        self._mailbox.run(woken=woken)
        for own, _ in polled[woken:]:
            self._receive(own)
        self._portions.go_on(started)
        self._done_at = time.monotonic()
        return started

    def _receive(self, own: "zmq.Socket[bytes]") -> None:
        """Take one message: to ask the poller again costs less than to ask a socket whether there is another."""
        if own not in self._channels:  # a handshake, or replaced while the mailbox or the other channel was served
            if self._gate is not None and own is self._gate.asked:
                self._gate.answer()
            return
        channel, is_router, gate, watcher = self._channels[own]
        received = receive(own, is_router, gate, watcher)
        if received is not None:
            self._handler.on_message(channel, *received)

    def _close(self) -> None:
        self._own.close()
        self._mailbox.close()
