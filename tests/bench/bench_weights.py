"""What pushing weights costs, as ratios within one run: `python -m tests.bench.bench_weights [--sizes 1 25 100]`.

    stall_ratio    what a push takes from the training thread, over a bare `_foreach_copy_` of the same tensors into
                   preallocated tensors of the wire's dtype                                              at most 1.2
    latency_ratio  from the announcement of a version until it is resident in an idle scorer, over the same exchange
                   (hint, fetch, buckets) by bare ZeroMQ sockets and the same copy into the model; with a GPU both
                   with the copies from it and to it                                                     at most 1.5

For models of 1, 25 and 100 million parameters and both dtypes of the wire; the worst is the one without a size. Each
process has a core of its own; medians over pairs measured in turns, the weights written just before, as a step does.
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zmq

from common.buckets import bucket_span, num_buckets
from common.config import ScorerOptions
from common.data.sources import open_source
from common.devices import pinned
from common.memory import keep_freed_memory
from common.models import find_head
from common.processes import private_folder
from common.weights import copy_groups, grouped, manifest_of, model_tensors
from tests.bench.arms import trainer_options
from tests.bench.measure import Cores, Pairs, machine, print_table
from tests.bench.resident import Resident, open_resident
from trainer.assembly import assemble
from trainer.link import ScorerLink
from trainer.loop import make_model
from trainer.plan import Plan
from trainer.publisher import WIRES, Wire

SIZES = (1, 25, 100)  # million parameters
PAIRS = {1: 75, 25: 15, 100: 15}  # by size: a push of the smallest takes a quarter of a millisecond
NUM_BUFFERS = 2  # as many as a publisher fills in turns


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints tables and a JSON line; returns what the line holds."""
    parser = argparse.ArgumentParser(prog="bench_weights", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, help="million parameters (with --quick: 1)")
    parser.add_argument("--wires", nargs="+", choices=WIRES, default=list(WIRES), help="dtypes of the wire")
    parser.add_argument(
        "--pairs",
        type=int,
        help="pairs for each ratio (default 75 of the smallest model, 15 of others, with --quick 2)",
    )
    parser.add_argument("--device", default="cpu", help="of trainer and scorer (default cpu)")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    chosen = parser.parse_args(argv)
    pairs = {size: chosen.pairs or (2 if chosen.quick else num) for size, num in PAIRS.items()}
    sizes = chosen.sizes or ([1] if chosen.quick else list(SIZES))
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    keep_freed_memory()  # as both processes of a run do

    cores = Cores.pick()
    result: dict[str, Any] = {
        "bench": "weights",
        "load_before": os.getloadavg(),
        "pairs": [pairs[size] for size in sizes],
    }
    for size, wire in itertools.product(sizes, chosen.wires):
        with opened_sides(size, wire, chosen.device, cores) as sides:
            name = f"{size}m_{wire}"
            rows, ratios = sides.measure(pairs[size])
        print_table(f"{size} million parameters, {wire} on the wire, {chosen.device}", rows)
        result |= {f"{key}_{name}": value for key, value in ratios.items()}
    for key in ("stall_ratio", "latency_ratio"):
        result[key] = max(value for name, value in result.items() if name.startswith(f"{key}_"))
    result |= {"device": chosen.device, "load_after": os.getloadavg(), "machine": machine()}
    print(json.dumps(result))
    return result


class Sides:
    """A trainer's link with an idle scorer, and bare sockets between the same processes."""

    def __init__(self, link: ScorerLink, model: torch.nn.Module, wire: Wire, raw: "zmq.Socket[bytes]") -> None:
        self._link = link
        self._raw = raw
        self._wire = wire
        self._steps = itertools.count(1)
        self._tensors = list(model_tensors(model).values())
        self._parameters = [parameter.detach() for parameter in model.parameters()]
        self._device = self._tensors[0].device
        self._manifest = manifest_of(model, wire=wire, head=find_head(model, None))
        rows = self._manifest.rows
        buffers = (
            [torch.empty(row.shape, dtype=getattr(torch, row.dtype), device=self._device) for row in rows]
            for _ in range(NUM_BUFFERS)
        )
        self._copies = itertools.cycle([grouped(buffer, self._tensors) for buffer in buffers])
        self._peer = b""
        total = self._manifest.total_bytes
        self._flat = torch.zeros(total, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        self._snapshot = self._flat.to(self._device)  # itself on the CPU
        sent = self._flat.numpy().data
        self._buckets = [sent[slice(*bucket_span(number, total))] for number in range(num_buckets(total))]
        self._scorer: Resident

    def meet(self, scorer: Resident) -> None:
        """Wait until the scorer holds the first version and its bare socket is there."""
        self._scorer = scorer
        scorer.wait_for("0")
        self._peer, _ = self._raw.recv_multipart()

    def measure(self, num_pairs: int) -> tuple[list[tuple[str, str]], dict[str, float]]:
        """Rows for the table, and figures by key."""
        for warm in (self._push, self._copy, self._announced_to_resident, self._sent_to_copied):
            warm(), warm()
        stalls = Pairs.measure(num_pairs, self._push, self._copy)
        latencies = Pairs.measure(num_pairs, self._announced_to_resident, self._sent_to_copied)
        megabytes = self._manifest.total_bytes / 1e6
        rows = [
            ("on the wire", f"{megabytes:.1f} MB, {len(self._tensors)} tensors, {len(self._buckets)} buckets"),
            ("a push stalls training", f"{_ms(stalls.first)} ms"),
            ("bare _foreach_copy_", f"{_ms(stalls.second)} ms"),
            ("stall_ratio", f"{stalls.ratio:.3f}, quartiles {stalls.spread}"),
            ("announced to resident", f"{_ms(latencies.first)} ms"),
            ("bare ZeroMQ and copy", f"{_ms(latencies.second)} ms"),
            ("latency_ratio", f"{latencies.ratio:.3f}, quartiles {latencies.spread}"),
        ]
        figures = {
            "stall_ratio": stalls.ratio,
            "stall_ms": 1e3 * float(np.median(stalls.first)),
            "latency_ratio": latencies.ratio,
            "latency_ms": 1e3 * float(np.median(latencies.first)),
        }
        return rows, {key: round(value, 3) for key, value in figures.items()}

    def _step(self) -> None:
        """What an optimiser step leaves behind: weights written throughout."""
        with torch.no_grad():
            torch._foreach_add_(self._parameters, 1e-6)
        self._synchronize()

    def _synchronize(self) -> None:
        """Wait for the training stream alone: a copy to the host may go on beside the next step."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def _timed_push(self) -> tuple[float, float, str]:
        """Seconds of the stall, the monotonic clock when the I/O thread had the version, and the step."""
        step = next(self._steps)
        self._step()
        started = time.perf_counter()
        self._link.push(step)
        announced = time.monotonic()  # the push hands the version to the I/O thread as its last act
        self._synchronize()
        return time.perf_counter() - started, announced, str(step)

    def _push(self) -> float:
        """Seconds that the training thread spends; returns when the scorer is idle again."""
        stall_s, _, step = self._timed_push()
        self._scorer.wait_for(step)
        return stall_s

    def _copy(self) -> float:
        groups = next(self._copies)
        self._step()
        started = time.perf_counter()
        copy_groups(groups)
        self._synchronize()
        return time.perf_counter() - started

    def _announced_to_resident(self) -> float:
        _, announced, step = self._timed_push()
        return self._scorer.wait_for(step) - announced

    def _sent_to_copied(self) -> float:
        started = time.monotonic()
        if self._device.type == "cuda":
            self._flat.copy_(self._snapshot, non_blocking=True)
            self._synchronize()
        self._raw.send_multipart([self._peer, self._wire.encode()])
        self._raw.recv_multipart()
        for bucket in self._buckets:
            self._raw.send(self._peer, zmq.SNDMORE)
            self._raw.send(bucket, copy=False)
        return self._scorer.wait_for("raw") - started


@contextlib.contextmanager
def opened_sides(size: int, wire: Wire, device: str, cores: Cores) -> Iterator[Sides]:
    """Both processes, pinned, with the first version resident."""
    shared = {"data": "digits", "model": f"tests.bench.bulk:million_{size}"}
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        opened.enter_context(pinned(cores.trainer))
        options = trainer_options(shared, mode="stale", wire=wire, device=device, listen=f"ipc://{folder}/t")
        source = open_source(options)
        model = make_model(options, source).to(device)
        head, plan = find_head(model, options.head), Plan.of(options)
        link = ScorerLink(options, source, model, head, plan, 1, assemble(options, source, model, head, plan))
        link.pool.finish()  # no leases: the scorer is idle
        context = opened.enter_context(zmq.Context())
        raw = opened.enter_context(context.socket(zmq.ROUTER))
        raw.setsockopt(zmq.SNDHWM, 0)
        raw.bind(f"ipc://{folder}/raw")
        opened.enter_context(link)
        sides = Sides(link, model, wire, raw)
        scorer = ScorerOptions(**shared, threads=1, scorer_device=device, connect=f"ipc://{folder}/t")
        sides.meet(opened.enter_context(open_resident(scorer, f"ipc://{folder}/raw", cores.scorer)))
        yield sides


def _ms(times: Sequence[float]) -> str:
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75]) * 1e3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
