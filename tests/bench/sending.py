"""What sending takes: ZeroMQ's own thread for each byte, plain or encrypted, and whoever calls it for each message."""

import contextlib
import threading
import time

import zmq

from common.sending import ZERO_COPY_BYTES
from tests.bench.thread_clocks import tasks_cpu_s, zmq_threads

FRAME_BYTES = 1 << 20  # a bucket
AHEAD = 16  # frames in the queue: a window
WITHIN_MS = 10_000


def sending_s_per_byte(seconds: float, *, encrypted: bool) -> float:
    """Seconds of a core for each byte, of the sender's thread alone, on loopback; 0 where threads cannot be seen."""
    with contextlib.ExitStack() as opened:
        others = zmq_threads()
        sender = opened.enter_context(zmq.Context()).socket(zmq.PAIR)
        opened.callback(sender.close, 0)
        deadline = time.perf_counter() + 1.0
        while not (own := zmq_threads() - others) and time.perf_counter() < deadline:
            time.sleep(0.001)  # until they have their names
        receiver = opened.enter_context(zmq.Context()).socket(zmq.PAIR)
        opened.callback(receiver.close, 0)
        for one in (sender, receiver):
            one.setsockopt(zmq.SNDHWM, AHEAD)
            one.setsockopt(zmq.RCVHWM, AHEAD)
            one.setsockopt(zmq.SNDTIMEO, WITHIN_MS)
            one.setsockopt(zmq.RCVTIMEO, WITHIN_MS)
        if encrypted:
            _encrypt(sender, receiver)
        port = sender.bind_to_random_port("tcp://127.0.0.1")
        receiver.connect(f"tcp://127.0.0.1:{port}")
        taking = threading.Thread(target=_take, args=(receiver,))
        taking.start()
        frame, num = bytes(FRAME_BYTES), 0
        sender.send(frame)  # connected, hands shaken
        before, deadline = tasks_cpu_s(own), time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            sender.send(frame, copy=False)
            num += 1
        sender.send(b"")
        taking.join()
        return (tasks_cpu_s(own) - before) / (num * FRAME_BYTES)


def sending_s(num_bytes: int, num: int = 256) -> float:
    """Seconds of the caller's core for each message of so many bytes; large ones are neither copied nor waited for."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as sender, context.socket(zmq.PAIR) as receiver:
        for one in (sender, receiver):
            one.setsockopt(zmq.SNDHWM, 0)
            one.setsockopt(zmq.LINGER, 0)
            one.setsockopt(zmq.RCVHWM, AHEAD)
        port = sender.bind_to_random_port("tcp://127.0.0.1")
        receiver.connect(f"tcp://127.0.0.1:{port}")
        header, frame = bytes(64), bytes(num_bytes)
        is_large = num_bytes >= ZERO_COPY_BYTES
        sender.send(frame, copy=False, track=True)  # pyzmq starts a thread for the first that is not copied
        started = time.thread_time()
        for _ in range(num):
            sender.send(header, zmq.SNDMORE)
            sender.send(frame, copy=not is_large, track=is_large)
        return (time.thread_time() - started) / num


def _encrypt(server: "zmq.Socket[bytes]", client: "zmq.Socket[bytes]") -> None:
    public, secret = zmq.curve_keypair()
    server.curve_server, server.curve_secretkey, server.curve_publickey = True, secret, public
    client.curve_publickey, client.curve_secretkey = zmq.curve_keypair()
    client.curve_serverkey = public


def _take(receiver: "zmq.Socket[bytes]") -> None:
    while len(receiver.recv(copy=False)):
        pass
