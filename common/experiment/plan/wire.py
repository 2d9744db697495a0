"""What a message costs between two sockets of this machine: the scores of a chunk, and a push of weights."""

import statistics
import time

import numpy as np
import zmq

from common.buckets import BUCKET_BYTES, bucket_checksum
from common.processes import private_folder
from common.protocol import Array, Candidates, Version, decode, encode

TIMES = 15
WITHIN_MS = 10_000


def wire_s(chunk: int, weights_bytes: int) -> tuple[float, float]:
    """Seconds of the scores of a chunk, from array to array, and of weights with their checksums on both sides."""
    message = Candidates(
        lease=1,
        version=Version(1, 1),
        num=chunk,
        dropped=b"",
        scores=(Array.of(np.zeros(chunk, dtype=np.float32)),),
        loss_mean=0.0,
        accuracy=0.0,
        read_s=0.0,
        score_s=0.0,
    )
    buckets = [bytes(min(BUCKET_BYTES, weights_bytes - at)) for at in range(0, max(weights_bytes, 1), BUCKET_BYTES)]
    with private_folder() as folder, zmq.Context() as context, context.socket(zmq.PULL) as here:
        here.bind(f"ipc://{folder}/plan")
        with context.socket(zmq.PUSH) as there:
            there.connect(f"ipc://{folder}/plan")
            for socket in (here, there):
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.RCVTIMEO, WITHIN_MS)
                socket.setsockopt(zmq.SNDTIMEO, WITHIN_MS)

            def answer() -> None:
                there.send_multipart(encode(message))
                decode([frame.buffer for frame in here.recv_multipart(copy=False)])

            def push() -> None:
                for bucket in buckets:
                    bucket_checksum(bucket)
                    there.send(bucket, copy=False)
                    bucket_checksum(here.recv(copy=False).buffer)

            return _median(answer), _median(push)


def _median(call: object) -> float:
    assert callable(call)
    call()
    times = []
    for _ in range(TIMES):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
