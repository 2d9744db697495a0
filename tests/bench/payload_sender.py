"""The sending process of `tests.bench.payload`: `python -m tests.bench.payload_sender FOLDER SIZE`."""

import queue
import sys
import threading

import torch
import zmq

from common.memory import keep_freed_memory
from common.payload_room import PayloadRoom
from common.protocol import DEFAULT_LIMITS, Goodbye, decode, encode
from common.transport import CONTROL, Channel, IOThread
from tests.bench.payload import WINDOW, WITHIN_S, candidates, samples, welcome


class Sender:
    """Handler of the scorer's side: a lease allows one more message."""

    def __init__(self, endpoint: str, size: str) -> None:
        self._io: IOThread
        self._leases: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(WINDOW):
            self._leases.put(None)
        self._samples = samples(size)
        self._room = PayloadRoom(endpoint)
        self.connected = threading.Event()

    def on_start(self, io: IOThread) -> None:
        self._io = io
        self._room.begin(welcome(chunk_size=len(self._samples[0])))

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        decode(frames)
        self._leases.put(None)

    def on_tick(self, now: float) -> None:
        if not self.connected.is_set() and self._io.send(CONTROL, encode(Goodbye("connected"))) is not False:
            self.connected.set()  # what is sent before is lost

    def on_stop(self) -> None:
        pass

    def send(self, num: int) -> None:
        """As a scorer answers: the message is made on the main thread, placed and encoded on the I/O thread."""
        for number in range(num):
            self._leases.get()
            message = candidates(number, *self._samples)
            self._io.post(lambda message=message: self._io.send(CONTROL, encode(self._room.placed(message))))


def main(folder: str, size: str) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    sender = Sender(f"ipc://{folder}/ours", size)
    io = IOThread("sender-io", sender, max_frame_bytes=DEFAULT_LIMITS.max_frame_bytes)
    io.connect(CONTROL, f"ipc://{folder}/ours")
    io.start()
    if not sender.connected.wait(WITHIN_S):
        raise RuntimeError("no receiver to connect to")
    frames = encode(candidates(1, *samples(size)))
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(f"ipc://{folder}/raw")
        credits = WINDOW
        for line in sys.stdin:
            kind, num = line.split()
            if kind == "ours":
                sender.send(int(num))
                continue
            for _ in range(int(num)):
                while credits == 0 or dealer.poll(0):
                    dealer.recv_multipart()
                    credits += 1
                dealer.send_multipart(frames, copy=False)
                credits -= 1
    io.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
