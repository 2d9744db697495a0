"""Peers that speak the protocol over raw sockets as a test tells them: a scorer for a trainer, a trainer for a Link."""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import zmq

from common.buckets import bucket_checksum, bucket_span, num_buckets
from common.endpoints import weights_endpoint
from common.processes import private_folder
from common.protocol import (
    PROTOCOL_VERSION,
    Array,
    Candidates,
    Fetch,
    Hello,
    Lease,
    Message,
    TensorSpec,
    Version,
    Weights,
    Welcome,
    decode,
    encode,
)

WITHIN_S = 10.0
FINGERPRINT = {"model": "m", "data": "d", "decoder": "p", "augmentation": "a"}

M = TypeVar("M")
_incarnations = itertools.count(1)


def until(holds: Callable[[], Any], what: str = "something") -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.002)
    return value


def hello(**changes: Any) -> Hello:
    fields = {
        "protocol": PROTOCOL_VERSION, "run": "", "name": "hand-made", "incarnation": next(_incarnations),
        "device": "cpu", "precision": "float32", "backend": "torch", "fingerprint": FINGERPRINT,
        "num_samples": 100, "num_classes": 10,
    }  # fmt: skip
    return Hello(**(fields | changes))


def answer(lease: Lease, version: Version, scores: Sequence[float] | None = None, **changes: Any) -> Candidates:
    """Honest scores: the positions themselves."""
    values = np.asarray(range(lease.start, lease.stop) if scores is None else scores, dtype=np.float32)
    fields = {
        "lease": lease.lease, "version": version, "num": len(values), "dropped": b"", "scores": (Array.of(values),),
        "loss_mean": None, "accuracy": None, "read_s": 0.0, "score_s": 0.0,
    }  # fmt: skip
    return Candidates(**(fields | changes))


def receive(socket: "zmq.Socket[bytes]", wanted: type[M], peers: bool = False) -> tuple[bytes, M]:
    """The next message of a kind, others are passed over; with the peer's routing id where the socket is a ROUTER."""
    deadline = time.monotonic() + WITHIN_S
    while (left_s := deadline - time.monotonic()) > 0:
        if socket.poll(left_s * 1000):
            frames = [frame.buffer for frame in socket.recv_multipart(copy=False)]
            peer = bytes(frames.pop(0)) if peers else b""
            message = decode(frames)
            if isinstance(message, wanted):
                return peer, message
    raise AssertionError(f"waited in vain for {wanted.__name__}")


class Sockets:
    """A context of ZeroMQ's own, closed with all its sockets."""

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self._context = zmq.Context()
        self._closing.callback(self._context.term)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def open(self, kind: int) -> "zmq.Socket[bytes]":
        opened = self._context.socket(kind)
        opened.setsockopt(zmq.LINGER, 0)
        self._closing.callback(opened.close, 0)
        return opened


class HandMadeScorer(Sockets):
    """Says what it is told to, nothing by itself: no heartbeats, no answers."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self.control, self.weights = self.open(zmq.DEALER), self.open(zmq.DEALER)
        self.control.connect(endpoint)
        self.weights.connect(weights_endpoint(endpoint, 0))

    def say(self, message: Message) -> None:
        self.control.send_multipart(encode(message))

    def hear(self, wanted: type[M]) -> M:
        return receive(self.control, wanted)[1]

    def join(self, **changes: Any) -> Welcome:
        self.say(hello(**changes))
        return self.hear(Welcome)

    def fetch(self, welcome: Welcome, version: Version, first: int = 0, num: int = 1) -> None:
        self.weights.send_multipart(encode(Fetch(welcome.session, version, first, num)))


class HandMadeTrainer(Sockets):
    """A control and a weights socket where a Link connects; what comes waits until a test looks.

    Args:
        endpoint: of another rank than the first, which has no weights.
    """

    def __init__(self, scheme: str = "ipc", endpoint: str | None = None) -> None:
        super().__init__()
        self.control, self.weights = self.open(zmq.ROUTER), self.open(zmq.ROUTER)
        self.weights_port = 0
        if endpoint is not None:
            self.endpoint = endpoint
            self.control.bind(endpoint)
        elif scheme == "ipc":
            self.endpoint = f"ipc://{self._closing.enter_context(private_folder())}/t"
            self.control.bind(self.endpoint)
            self.weights.bind(weights_endpoint(self.endpoint, 0))
        else:
            self.endpoint = f"tcp://127.0.0.1:{self.control.bind_to_random_port('tcp://127.0.0.1')}"
            self.weights_port = self.weights.bind_to_random_port("tcp://127.0.0.1")
        self.peer = b""

    def hear(self, wanted: type[M]) -> M:
        self.peer, message = receive(self.control, wanted, peers=True)
        return message

    def say(self, message: Message) -> None:
        self.control.send_multipart([self.peer, *encode(message)])

    def welcome(self, session: int = 1, **changes: Any) -> Welcome:
        """Wait for a HELLO and answer it."""
        self.hear(Hello)
        fields = {
            "session": session, "generation": 7, "seed": 0, "num_samples": 100, "chunk_size": 4, "scores": ("mms",),
            "transfer": "reference", "best_k": None, "lowest_is_hard": True, "wire": "float32",
            "weights_port": self.weights_port, "version": None, "heartbeat_s": 0.02, "silence_s": 100.0,
        }  # fmt: skip
        made = Welcome(**(fields | changes))
        self.say(made)
        return made

    def fetched(self) -> Fetch:
        """The next FETCH; the answer goes to where it came from."""
        self._fetcher, fetch = receive(self.weights, Fetch, peers=True)
        return fetch

    def serve(self, fetch: Fetch, spoil: Callable[[Weights], Weights] = lambda one: one) -> None:
        """Answer a FETCH with buckets of `weights_of` its version."""
        for message in weights_of(fetch.version)[fetch.first_bucket : fetch.first_bucket + fetch.num_buckets]:
            self.reply(spoil(message))

    def reply(self, message: Message) -> None:
        """To the last FETCH."""
        self.weights.send_multipart([self._fetcher, *encode(message)])

    def serve_whole(self, version: Version) -> None:
        """Answer FETCHes until the last bucket of a version was sent."""
        last = len(weights_of(version)) - 1
        while True:
            fetch = self.fetched()
            assert fetch.version == version
            self.serve(fetch)
            if fetch.first_bucket + fetch.num_buckets > last:
                return


WEIGHTS_BYTES = 1000


def bytes_of(version: Version) -> bytes:
    return np.random.default_rng(version.step).bytes(WEIGHTS_BYTES)


def weights_of(version: Version) -> list[Weights]:
    """All buckets of a version of some model."""
    data, num = bytes_of(version), num_buckets(WEIGHTS_BYTES)
    made = []
    for bucket in range(num):
        start, stop = bucket_span(bucket, WEIGHTS_BYTES)
        manifest = (TensorSpec("w", "uint8", (WEIGHTS_BYTES,)),) if bucket == 0 else None
        checksum = bucket_checksum(data[start:stop])
        made.append(Weights(version, bucket, num, WEIGHTS_BYTES, checksum, manifest, data[start:stop]))
    return made
