"""How costs grow with the work: `python -m tests.bench.bench_scale [--parts order ledger ... events]`.

    order_us       ids of a chunk of 256 positions, for 10^4 to 10^9 samples; order_ratio is the dearest over the
                   cheapest size, order_bytes the most memory that one chunk takes, at any size
    ledger_us      one visit to a ledger of 10^4 to 10^8 samples by a chunk of random ids: planned, scored, trained;
                   ledger_bytes_per_sample is its memory
    candidates_us  offering a step's candidates to the method and picking 32 of them, for 64 to 16,384 candidates
    scorers        for 1, 2, 4 and 8 synthetic scorers that sleep 20 ms for each chunk: chunks a second, their share of
                   what the scorers could give, and the work of the trainer's I/O thread for each
    model_push_ms  what a push takes from training, for models of 1, 25 and 100 million parameters
    service        a training step beside 64 synthetic scorers, beside one and beside none: Jain's index of their chunks
                   (goal .95), ratios of the steps (goal 1.02), and what the I/O thread needs of a core; as scorers
                   stand for other hosts, they share the other core at the lowest priority and stand still beside the
                   others' blocks, and only the thread that trains is pinned
    limits         up to 1,000 scorers and 64 ranks: what runs out first, calculated from what messages cost at up to
                   1,000 sessions, and held against `service` where that is measured too
    events         leases in simulated time for up to 1,000 scorers of four speeds: shares and staleness

`--model` chooses the last three. Sizes of one part are measured in turns; medians.
"""

import argparse
import itertools
import json
import logging
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from common.devices import pinned
from common.order import Order
from tests.bench import bulk
from tests.bench.arms import DIGITS, IMAGES
from tests.bench.bench_ledger import CHUNK, MAX_AGE, check_memory
from tests.bench.measure import Cores, machine, print_table
from tests.bench.scale_limits import report_events, report_limits
from tests.bench.scale_report import report_service
from tests.bench.scale_scorers import drained
from tests.bench.scale_service import measure_service_at_scale
from tests.trainer.chunks import scored
from tests.trainer.selectors import make_selector
from trainer.ledger import FIELDS, Ledger
from trainer.publisher import Publisher

SELECTED = 32
PARTS = ("order", "ledger", "candidates", "scorers", "model", "service", "limits", "events")
NUM_SCORERS = 64
SCORER_CHUNK_S = 0.1  # 30 leases at a time make 300 chunks a second
CHUNK_S = 0.02


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints tables and a JSON line; returns what the line holds."""
    parser = argparse.ArgumentParser(prog="bench_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", action="store_const", dest="parts", const=["service", "limits", "events"])
    parser.add_argument("--scorers", type=int, default=NUM_SCORERS, help="of the part `service`")
    parser.add_argument("--rounds", type=int, help="of each size (default 200; service: 60; with --quick 5, 2)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    chosen = parser.parse_args(argv)
    rounds = chosen.rounds or (5 if chosen.quick else 200)
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)

    cores = Cores.pick()
    result: dict[str, Any] = {"bench": "scale", "load_before": os.getloadavg(), "rounds": rounds}
    with pinned(cores.trainer):
        if "order" in chosen.parts:
            result |= order_costs([10**power for power in range(4, 10)], rounds)
        if "ledger" in chosen.parts:
            result |= ledger_costs([10**power for power in range(4, 6 if chosen.quick else 9)], rounds)
        if "candidates" in chosen.parts:
            result |= candidates_costs([64, 256, 1024, 4096, 16384], rounds)
        if "model" in chosen.parts:
            result |= model_costs([1] if chosen.quick else list(bulk.LAYERS), min(rounds, 15))
    if "scorers" in chosen.parts:
        result |= scorers_costs([1, 2] if chosen.quick else [1, 2, 4, 8], cores, 0.5 if chosen.quick else 5.0)
    result |= _many_scorers(chosen, cores)
    result |= {"load_after": os.getloadavg(), "machine": machine()}
    print(json.dumps(result))
    return result


def _many_scorers(chosen: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    """The parts `service`, `limits` and `events`."""
    result, scaled, quick = {}, None, chosen.quick
    if "service" in chosen.parts:
        num, workload = (min(4, chosen.scorers), DIGITS) if quick else (chosen.scorers, IMAGES)
        rounds = chosen.rounds or (2 if quick else 60)
        times = {"rounds": rounds, "block_s": 0.2 if quick else 0.7, "chunk_s": SCORER_CHUNK_S / (20 if quick else 1)}
        scaled = measure_service_at_scale(workload, cores, num=num, **times)
        result |= {"service": report_service(scaled)}
    with pinned(cores.trainer):
        if "limits" in chosen.parts:
            result |= report_limits(scaled, quick=quick)
        if "events" in chosen.parts:
            result |= report_events(quick=quick)
    return result


def order_costs(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time and memory of a chunk's ids."""
    orders = {size: Order(size, 0, "candidates") for size in sizes}
    starts = itertools.count(0, CHUNK)

    def ids(size: int) -> Callable[[], object]:
        return lambda: orders[size].ids(np.arange(start := next(starts), start + CHUNK))

    calls = {size: ids(size) for size in sizes}
    costs = _in_turns(calls, rounds)
    num_bytes = {size: _peak_bytes(call) for size, call in calls.items()}
    ratio = max(costs.values()) / min(costs.values())
    rows = [(f"{size:,} samples", f"{costs[size]:.1f} µs, {num_bytes[size]:,} bytes") for size in sizes]
    print_table(f"ids of {CHUNK} positions: {ratio:.2f} times from the cheapest to the dearest", rows)
    return {"order_us": costs, "order_ratio": round(ratio, 3), "order_bytes": max(num_bytes.values())}


def ledger_costs(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time of a chunk's visit, memory of a sample."""
    check_memory(max(sizes))
    ledgers = {size: Ledger(size, FIELDS) for size in sizes}
    values = np.linspace(0, 1, CHUNK, dtype=np.float32)
    starts = itertools.count(0, CHUNK)

    def visit(size: int) -> Callable[[], object]:
        ledger, order = ledgers[size], Order(size, 0, "bench")

        def prepared() -> Callable[[], None]:
            start = next(starts)
            ids = order.ids(np.arange(start, start + CHUNK))

            def call() -> None:
                ledger.plan_visit(ids, MAX_AGE)
                ledger.scored(ids, losses=values, scores=values)
                ledger.trained(ids, values)

            return call

        return prepared

    costs = _in_turns({size: visit(size) for size in sizes}, rounds, prepared=True)
    per_sample = max(ledger.nbytes / size for size, ledger in ledgers.items())
    rows = [(f"{size:,} samples", f"{costs[size]:.1f} µs, {ledgers[size].nbytes / 1e6:,.1f} MB") for size in sizes]
    print_table(f"a visit of {CHUNK} random ids to the ledger", rows)
    return {"ledger_us": costs, "ledger_bytes_per_sample": round(per_sample, 2)}


def candidates_costs(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time of a step's selection, off the training path."""
    generator = torch.Generator().manual_seed(0)

    def select(size: int) -> Callable[[], object]:
        selector = make_selector("mms", num_samples=10**9, batch_size=SELECTED, steps=10**9)
        steps, chunk = itertools.count(), min(CHUNK, size)
        scores = torch.rand(chunk, generator=generator).tolist()

        def prepared() -> Callable[[], None]:
            step = next(steps)
            chunks = [scored(step * size + start, chunk, scores=scores) for start in range(0, size, chunk)]

            def call() -> None:
                selector.offer(chunks, step)
                selector.pick(step)

            return call

        return prepared

    costs = _in_turns({size: select(size) for size in sizes}, rounds, prepared=True)
    rows = [(f"{size:,} candidates", f"{cost:.1f} µs, {cost / size:.2f} µs each") for size, cost in costs.items()]
    print_table(f"choosing {SELECTED} by mms", rows)
    return {"candidates_us": costs}


def model_costs(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time of the copy on the training path, nobody fetching."""
    sample = SimpleNamespace(shape=(1, 8, 8), num_classes=10)
    costs, rows = {}, []
    for size in sizes:
        model = getattr(bulk, f"million_{size}")(sample)
        publisher = Publisher(model, model.head, 1)
        steps = itertools.count()

        def push(publisher: Publisher = publisher, steps: "itertools.count[int]" = steps) -> None:
            slot = publisher.push(next(steps))
            assert slot is not None, "nobody holds the others"
            publisher.announce(slot)

        costs[size] = round(_in_turns({size: push}, rounds)[size] / 1e3, 3)
        megabytes = publisher.manifests["float32"].total_bytes / 1e6
        rows.append((f"{size} million parameters", f"{costs[size]:.2f} ms, {megabytes / costs[size]:.1f} GB/s"))
    print_table("a push", rows)
    return {"model_push_ms": costs}


def scorers_costs(nums: Sequence[int], cores: Cores, block_s: float) -> dict[str, Any]:
    """What arrives of what synthetic scorers give."""
    measured = drained(nums, cores, chunk_s=CHUNK_S, block_s=block_s)
    rows = []
    for num, one in measured.items():
        share = f"{one.delivered_fraction:.1%} of what they could give"
        rows.append((f"{num} scorers", f"{one.chunks_per_s:.0f} chunks/s, {share}, {one.io_us_per_chunk:.0f} µs each"))
    print_table(f"synthetic scorers, {1e3 * CHUNK_S:.0f} ms a chunk", rows)
    return {
        "scorers": {num: {key: round(value, 3) for key, value in asdict(one).items()} for num, one in measured.items()}
    }


def _in_turns(calls: Mapping[int, Callable[[], Any]], rounds: int, *, prepared: bool = False) -> dict[int, float]:
    """Median microseconds of each; `prepared`: of what each returns, which is made anew for each time."""
    times: dict[int, list[float]] = {size: [] for size in calls}
    for number in range(rounds + 2):
        for size, make in calls.items():
            call = make() if prepared else make
            started = time.perf_counter_ns()
            call()
            if number >= 2:
                times[size].append((time.perf_counter_ns() - started) / 1e3)
    return {size: round(statistics.median(taken), 2) for size, taken in times.items()}


def _peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
