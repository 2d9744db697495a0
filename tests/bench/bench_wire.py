"""What moving candidates costs: `python -m tests.bench.bench_wire [--quick]`.

    payload_ratio        throughput of payload over raw multipart ZeroMQ on the same frames: scorer and trainer on one
                         host, as runs do it, inputs in shared memory; the smaller of both sizes         at least .9
    payload_socket_ratio the same through the socket, as on tcp
    bytes_per_candidate  by reference, both directions and all headers, without weights                  at most 16
    header_us            making, checking and reading a lease and its answer by reference, for a chunk of 640, on one
                         core; scores are read as arrays, sockets and threads are not in it

Each process has a core of its own; medians over pairs measured in turns.
"""

import argparse
import itertools
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.devices import pinned
from common.memory import keep_freed_memory
from common.protocol import Array, Candidates, Version, decode, encode
from tests.bench.arms import DIGITS
from tests.bench.measure import Cores, machine, print_table
from tests.bench.payload import Way, lease, measure_payload
from tests.bench.wire import BATCH_SIZE, CANDIDATES, measure_bytes

MESSAGES = {"cifar": 400, "imagenet": 60}
WAYS: dict[Way, str] = {"room": "payload_ratio", "socket": "payload_socket_ratio"}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints tables and a JSON line; returns what the line holds."""
    parser = argparse.ArgumentParser(prog="bench_wire", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, help="pairs of blocks for each ratio (default 15, with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    chosen = parser.parse_args(argv)
    num_pairs = chosen.pairs or (2 if chosen.quick else 15)
    logging.basicConfig(level=logging.WARNING)
    keep_freed_memory()  # as both processes of a run do

    cores = Cores.pick()
    result: dict[str, Any] = {"bench": "wire", "load_before": os.getloadavg(), "pairs": num_pairs}
    for size, num_messages in MESSAGES.items():
        num = 20 if chosen.quick else num_messages
        for way, key in WAYS.items():
            pairs, rows = measure_payload(cores, size, way, num_pairs=num_pairs, num_messages=num)
            print_table(f"payload over raw multipart ZeroMQ, {size}, through a {way}", rows)
            result[f"{key}_{size}"] = round(pairs.ratio, 3)
    result |= {key: min(result[f"{key}_{size}"] for size in MESSAGES) for key in WAYS.values()}

    counted = measure_bytes(DIGITS, cores, steps=20 if chosen.quick else 200)
    print_table(f"bytes per candidate by reference, {CANDIDATES} candidates for {BATCH_SIZE}", counted.rows())
    result["bytes_per_candidate"] = round(counted.control, 2)

    with pinned(cores.trainer):
        parts = header_costs(50 if chosen.quick else 2000)
    print_table(f"a chunk of {CANDIDATES} by reference", [(name, f"{cost:.1f} µs") for name, cost in parts.items()])
    result |= {"header_us": round(sum(parts.values()), 1), "header_parts_us": parts}
    result |= {"load_after": os.getloadavg(), "machine": machine()}
    print(json.dumps(result))
    return result


def header_costs(num: int) -> dict[str, float]:
    """Medians of `num` calls, in microseconds, of each part of a chunk's way from the trainer and back."""
    numbers = itertools.count(1)
    scores = np.random.default_rng(0).random(CANDIDATES, dtype=np.float32)
    sent_lease, sent_answer = encode(lease(1)), encode(answer(1, scores))

    def read() -> None:
        message = decode(sent_answer)
        assert isinstance(message, Candidates)
        message.finite_scores()[0].copy()

    parts: dict[str, Callable[[], object]] = {
        "lease made": lambda: encode(lease(next(numbers))),
        "lease read": lambda: decode(sent_lease),
        "answer made": lambda: encode(answer(next(numbers), scores)),
        "answer read": read,
    }
    return {name: round(_median_us(part, num), 2) for name, part in parts.items()}


def answer(number: int, scores: np.ndarray) -> Candidates:
    """Candidates by reference, with one score each."""
    return Candidates(
        lease=number,
        version=Version(1, number),
        num=len(scores),
        dropped=b"",
        scores=(Array.of(scores),),
        loss_mean=1.0,
        accuracy=0.5,
        read_s=0.001,
        score_s=0.01,
    )


def _median_us(call: Callable[[], object], num: int) -> float:
    times = []
    for _ in range(num):
        started = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - started) / 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    main()
