"""Throughput of CANDIDATES with payload through our transport, over bare ZeroMQ sockets that move the same frames.

Two processes, as in a run: this one receives on a ROUTER, `tests.bench.payload_sender` sends from a DEALER. In all
ways the receiver answers each message with a LEASE and the sender has at most `WINDOW` messages under way. Through a
room (common.payload_room) the inputs are in shared memory, as they are in every run on ipc; through the socket they are
frames, as on tcp.
"""

import collections
import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import zmq

from common.arrays import as_array, as_tensor
from common.devices import pinned
from common.payload_room import Rooms
from common.processes import private_folder
from common.protocol import DEFAULT_LIMITS, Candidates, Goodbye, Lease, Version, Welcome, decode, encode
from common.transport import CONTROL, Channel, IOThread
from tests.bench.measure import Cores, Pairs

SIZES = {"cifar": (640, (3, 32, 32)), "imagenet": (128, (3, 224, 224))}  # candidates in a chunk, and their shape
WINDOW = 4
SESSION = 1
WITHIN_S = 60.0
MOST_WARM = 20  # blocks before the first pair
Way = Literal["room", "socket"]


def candidates(lease: int, inputs: torch.Tensor, targets: torch.Tensor, scores: torch.Tensor) -> Candidates:
    """A scorer's answer with every sample as payload."""
    return Candidates(
        lease=lease,
        version=Version(1, lease),
        num=len(scores),
        dropped=b"",
        scores=(as_array(scores),),
        loss_mean=1.0,
        accuracy=0.5,
        read_s=0.001,
        score_s=0.01,
        inputs=as_array(inputs),
        targets=as_array(targets),
    )


def lease(number: int) -> Lease:
    return Lease(number, 1, number * 640, (number + 1) * 640, b"", 0, 60.0)


def welcome(chunk_size: int) -> Welcome:
    version = Version(1, 0)
    return Welcome(
        *(SESSION, 1, 0, 50_000, chunk_size, ("mms",), "payload", None, True, "float32", 0, version, 1.0, 10.0)
    )


def samples(size: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    num, shape = SIZES[size]
    inputs = torch.randint(0, 256, (num, *shape), dtype=torch.uint8)
    return inputs, torch.randint(0, 10, (num,)), torch.rand(num)


class Receiver:
    """Handler of the trainer's side: frames to message to tensors, a lease back."""

    def __init__(self) -> None:
        self._io: IOThread
        self.events: collections.Counter[str] = collections.Counter()
        self.rooms = Rooms(self.events)
        self._due = 0
        self._numbers = itertools.count()
        self.done = threading.Event()
        self.taken: tuple[torch.Tensor, ...] = ()

    def expect(self, num: int) -> None:
        self._due = num
        self.done.clear()

    def on_start(self, io: IOThread) -> None:
        self._io = io

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        message = decode(frames)
        if isinstance(message, Goodbye):
            return
        assert isinstance(message, Candidates)
        message = self.rooms.filled(SESSION, message)
        assert message.inputs is not None
        assert message.targets is not None
        scores = torch.from_numpy(message.finite_scores()[0].copy())
        self.taken = (as_tensor(message.inputs), as_tensor(message.targets), scores)
        self._io.send(channel, encode(lease(next(self._numbers))), peer)
        self._due -= 1
        if self._due == 0:
            self.done.set()

    def on_tick(self, now: float) -> None:
        self.rooms.tick({SESSION})

    def on_stop(self) -> None:
        pass


def measure_payload(
    cores: Cores, size: str, way: Way, *, num_pairs: int, num_messages: int
) -> tuple[Pairs, list[tuple[str, str]]]:
    """Pairs of bytes a second (ours, raw) for a key of SIZES, and rows for the table.

    Each way has processes of its own: what a socket reaches with large messages, ours or a bare one, depends on what
    the allocator made of the memory of whatever went on in its process before.

    Raises:
        RuntimeError: messages did not arrive, or not the way that they should.
    """
    receiver = Receiver()
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        opened.enter_context(pinned(cores.trainer))
        io = IOThread("bench-io", receiver, max_frame_bytes=DEFAULT_LIMITS.max_frame_bytes)
        opened.callback(receiver.rooms.close)
        opened.callback(io.stop)
        endpoint = io.bind(CONTROL, f"ipc://{folder}/ours")
        if way == "room":
            receiver.rooms.open(endpoint)
        io.start()
        context = opened.enter_context(zmq.Context())
        router = opened.enter_context(context.socket(zmq.ROUTER))
        router.setsockopt(zmq.RCVTIMEO, int(1000 * WITHIN_S))
        router.bind(f"ipc://{folder}/raw")
        sender = opened.enter_context(_sender(folder, size, cores.scorer))
        message = candidates(1, *samples(size))
        num_bytes = num_messages * sum(len(frame) for frame in encode(message))

        def ours() -> float:
            receiver.expect(num_messages)
            started = time.perf_counter()
            _tell(sender, f"ours {num_messages}")
            if not receiver.done.wait(WITHIN_S):
                raise RuntimeError("payload through our transport did not arrive")
            return num_bytes / (time.perf_counter() - started)

        def raw() -> float:
            answer = encode(lease(1))
            started = time.perf_counter()
            _tell(sender, f"raw {num_messages}")
            for _ in range(num_messages):
                frames = router.recv_multipart(copy=False)
                router.send_multipart([frames[0], *answer])
            return num_bytes / (time.perf_counter() - started)

        raw()
        for _ in range(MOST_WARM):  # the first messages go out before the trainer's side has taken the room
            receiver.events.clear()
            ours()
            if way != "room" or receiver.events["chunks through shared memory"] == num_messages:
                break
        receiver.events.clear()
        pairs = Pairs.measure(num_pairs, ours, raw)
        wanted = num_pairs * num_messages if way == "room" else 0
        if (placed := receiver.events["chunks through shared memory"]) != wanted:
            raise RuntimeError(f"{placed} of {num_pairs * num_messages} messages through shared memory, not {wanted}")
    rows = [
        (f"through our transport and a {way}, tensors to tensors", f"{np.median(pairs.first) / 1e6:.0f} MB/s"),
        ("bare sockets, the same frames", f"{np.median(pairs.second) / 1e6:.0f} MB/s"),
        ("ratio", f"{pairs.ratio:.3f}, quartiles {pairs.spread}"),
        ("a message", f"{num_bytes / num_messages / 1e6:.2f} MB, {SIZES[size][0]} candidates of {SIZES[size][1]}"),
    ]
    return pairs, rows


@contextlib.contextmanager
def _sender(folder: Path, size: str, core: int | None) -> "Iterator[subprocess.Popen[str]]":
    with pinned(core):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.payload_sender", str(folder), size], stdin=subprocess.PIPE, text=True
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tell(process: "subprocess.Popen[str]", command: str) -> None:
    assert process.stdin is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
