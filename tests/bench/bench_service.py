"""What the service costs, as ratios within one run: `python -m tests.bench.bench_service [--quick]`.

    step_ratio           a stale training step over a plain one, while the same scorer scores into a sink   at most 1.03
    wall_ratio           a stale run's wall-clock over the fresh run's, at equal steps       (see best_wall_ratio)
    bytes_per_candidate  by reference, both directions and all headers, without weights                     at most 16
    payload_ratio        throughput of payload, inputs in shared memory as in every run on one host, over raw
                         multipart ZeroMQ on the same frames (see bench_wire for the socket)               at least .8

Each process has a core of its own; everything is float32 on one thread. Ratios are medians over pairs measured in turns
and mean little on a machine that does other things meanwhile: quartiles and the load are printed beside them.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

from tests.bench.arms import DIGITS, IMAGES
from tests.bench.measure import Cores, machine, print_table
from tests.bench.payload import measure_payload
from tests.bench.steps import measure_step_ratio
from tests.bench.wall import measure_wall_ratio
from tests.bench.wire import BATCH_SIZE, CANDIDATES, measure_bytes

WORKLOADS = {"images": IMAGES, "digits": DIGITS}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints tables and a JSON line; returns what the line holds."""
    parser = argparse.ArgumentParser(prog="bench_service", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, help="pairs of blocks for each ratio (default 15, with --quick 2)")
    parser.add_argument("--block-s", type=float, help="seconds of a timed block (default 2, with --quick 0.1)")
    parser.add_argument("--workload", choices=[*WORKLOADS, "all"], help="default all, with --quick digits")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    chosen = parser.parse_args(argv)
    num_pairs = chosen.pairs or (2 if chosen.quick else 15)
    block_s = chosen.block_s or (0.1 if chosen.quick else 2.0)
    workload = chosen.workload or ("digits" if chosen.quick else "all")
    names = list(WORKLOADS) if workload == "all" else [workload]
    logging.basicConfig(level=logging.WARNING)

    cores = Cores.pick()
    result: dict[str, Any] = {"bench": "service", "load_before": os.getloadavg(), "pairs": num_pairs}
    for name in names:
        result |= _training(name, cores, num_pairs, block_s)
    result |= {key: result[f"{key}_{names[0]}"] for key in ("step_ratio", "wall_ratio", "best_wall_ratio")}

    counted = measure_bytes(DIGITS, cores, steps=20 if chosen.quick else 200)
    print_table(f"bytes per candidate by reference, {CANDIDATES} candidates for {BATCH_SIZE}", counted.rows())
    result["bytes_per_candidate"] = round(counted.control, 2)

    for size, num_messages in (("cifar", 400), ("imagenet", 60)):
        num = 20 if chosen.quick else num_messages
        pairs, rows = measure_payload(cores, size, "room", num_pairs=num_pairs, num_messages=num)
        print_table(f"payload over raw multipart ZeroMQ, {size}", rows)
        result[f"payload_ratio_{size}"] = round(pairs.ratio, 3)
    result["payload_ratio"] = min(result["payload_ratio_cifar"], result["payload_ratio_imagenet"])

    result |= {"load_after": os.getloadavg(), "machine": machine()}
    print(json.dumps(result))
    return result


def _training(name: str, cores: Cores, num_pairs: int, block_s: float) -> dict[str, float]:
    """The two ratios of training for one workload, by key and workload."""
    workload = WORKLOADS[name]
    with cores.training():
        pairs, steps = measure_step_ratio(workload, cores, num_pairs=num_pairs, block_s=block_s)
        print_table(f"{name}, {workload['model']}: stale step over uniform step", steps.rows(pairs))
        wall = measure_wall_ratio(workload, cores, num_pairs=num_pairs, block_s=block_s)
        print_table(f"{name}, {workload['model']}: stale run over fresh run, equal steps", wall.rows())
    ratios = {"step_ratio": pairs.ratio, "wall_ratio": wall.pairs.ratio, "best_wall_ratio": wall.best}
    return {f"{key}_{name}": round(ratio, 3) for key, ratio in ratios.items()}


if __name__ == "__main__":
    main()
