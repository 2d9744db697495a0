"""A scorer that has nothing to score: says when each weights version became resident in it.

`python -m tests.bench.resident RAW` reads one JSON object of scorer options from stdin and fetches weights from the
trainer that they name, as scorers do. A second thread gets the same buckets from the bare ROUTER socket at RAW into a
model of its own. Both print a line at the end of each: what arrived, and the system's
monotonic clock, which all processes of a machine share. The end of stdin ends it.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import torch
import zmq

from common.buckets import bucket_span, num_buckets
from common.config import ScorerOptions
from common.data.sources import open_source
from common.devices import pick_device, pinned
from common.memory import keep_freed_memory
from common.models import build_model, find_head
from common.weights import copy_groups, grouped, manifest_of, model_tensors
from scorer.backend import make_backend
from scorer.link import Link
from scorer.loop import hello_of
from scorer.staging import StagedWeights

START_S = 120.0  # for importing torch and the first version


class Resident:
    """Talks to such a scorer from the trainer's process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def wait_for(self, what: str) -> float:
        """The clock when `what` had arrived; lines about anything else are passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            arrived, clock = line.split()
            if arrived == what:
                return float(clock)
        raise RuntimeError(f"the scorer ended with exit code {self._process.wait()} while {what} was awaited")


@contextlib.contextmanager
def open_resident(options: ScorerOptions, raw: str, core: int | None) -> Iterator[Resident]:
    """The process, on one core; it has fetched nothing yet."""
    with pinned(core):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.resident", raw],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(options.dump()) + "\n")
        process.stdin.flush()
        yield Resident(process)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


# -- the scorer's process ---------------------------------------------------------------------------------------------


def main(raw: str) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as both processes of a run do
    options = ScorerOptions(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_receive_raw, args=(raw, options), daemon=True).start()
    backend = make_backend(options)
    hello = hello_of(options, backend)
    with Link(options.connect, hello, connect_s=options.connect_s, check_manifest=backend.check_manifest) as link:
        threading.Thread(target=_await_end, args=(link,), daemon=True).start()
        while (work := link.next_work()) is not None:
            if isinstance(work, StagedWeights):
                backend.load(work)
                _say(str(work.version.step))
                link.loaded(work)


def _await_end(link: Link) -> None:
    sys.stdin.read()
    link.stop("the benchmark is over")


def _say(what: str) -> None:
    """One write for the whole line: two threads print."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    sys.stdout.write(f"{what} {time.monotonic()!r}\n")
    sys.stdout.flush()


def _receive_raw(endpoint: str, options: ScorerOptions) -> None:
    """As little as gets weights into a model: hear, ask, put the buckets together, bring them to its device, copy."""
    model = build_model(options.model, open_source(options).sample, seed=0)
    model.to(pick_device(options.scorer_device)).requires_grad_(False)
    tensors = list(model_tensors(model).values())
    device = tensors[0].device
    flats, received, copies = {}, {}, {}
    for wire in ("float32", "bf16"):
        manifest = manifest_of(model, wire=wire, head=find_head(model, None))
        flats[wire] = torch.zeros(manifest.total_bytes, dtype=torch.uint8)
        received[wire] = flats[wire].to(device)  # the same memory on the CPU
        copies[wire] = grouped(tensors, manifest.views(received[wire]))
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.RCVHWM, 0)
        dealer.connect(endpoint)
        dealer.send(b"ready")
        while True:
            wire = dealer.recv().decode()
            dealer.send(b"fetch")
            flat = flats[wire].numpy()
            for bucket in range(num_buckets(len(flat))):
                frame = dealer.recv(copy=False)
                flat[slice(*bucket_span(bucket, len(flat)))] = np.frombuffer(frame.buffer, dtype=np.uint8)
            if device.type != "cpu":
                received[wire].copy_(flats[wire])
            copy_groups(copies[wire])
            _say("raw")


if __name__ == "__main__":
    main(*sys.argv[1:])
