"""What selection costs a trainer, as ratios within one run: `python -m tests.bench.bench_trainer [--quick]`.

    step_ratio       a stale training step over a plain one, while the same scorer scores into a sink    at most 1.02
    scored_fraction  share of those stale steps that trained on scored candidates                        at least .95
    waited_fraction  share of their time in which the trainer stood still for a batch                    at most .01
    overlap_ratio    a stale run that waits for its candidates, at the balance point found in this run, over the longer
                     of scoring and training, each timed beside the other                                at most 1.1
    gap_fraction     on a GPU, share of stale steps in which no kernel or copy of the trainer runs, between steps or
                     within, less that share of uniform steps, both traced by CUPTI                      at most .01

Each process has a core of its own and computes in one thread; as under `run`, the threads that talk to scorers use the
scorer's core, and so does what reads and selects where that is little. Candidates per selected sample for the first
three: as many as leave the scorer a quarter of its time, 10 at most, in one chunk. Ratios are medians over pairs of
short blocks in turns, as a shared machine changes its pace from second to second. They mean little where other things
run meanwhile: quartiles and the load are printed.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

from common.data.sources import open_source
from common.devices import set_threads
from common.models import find_head
from common.precision.auto import choose_precision
from tests.bench.arms import DIGITS, IMAGES, trainer_options
from tests.bench.measure import Cores, machine, print_table
from tests.bench.overlap import find_balance, measure_overlap
from tests.bench.steps import measure_step_ratio
from trainer.loop import make_model

WORKLOADS = {"images": IMAGES, "digits": DIGITS}
MOST_PER_SELECTED = 10
LOAD = 0.75  # of the scorer, so that the trainer need not wait


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints tables and a JSON line; returns what the line holds."""
    parser = argparse.ArgumentParser(prog="bench_trainer", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, help="pairs of blocks for each ratio (default 45, with --quick 2)")
    parser.add_argument("--block-s", type=float, help="seconds of a timed block (default 0.6, with --quick 0.1)")
    parser.add_argument("--workload", choices=[*WORKLOADS, "all"], help="default all, with --quick digits")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--model", help="instead of the workload's")
    parser.add_argument("--precision", default="auto", help="of the scorer (default: the fastest that serves)")
    parser.add_argument("--device", default="cpu", help="of trainer and scorer: cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    chosen = parser.parse_args(argv)
    num_pairs = chosen.pairs or (2 if chosen.quick else 45)
    block_s = chosen.block_s or (0.1 if chosen.quick else 0.6)
    workload = chosen.workload or ("digits" if chosen.quick else "all")
    names = list(WORKLOADS) if workload == "all" else [workload]
    logging.basicConfig(level=logging.WARNING)

    cores = Cores.pick() if chosen.device == "cpu" else Cores(None, None)
    result: dict[str, Any] = {"bench": "trainer", "load_before": os.getloadavg(), "pairs": num_pairs}
    for name in names:
        given = {"batch_size": chosen.batch_size, "device": chosen.device, "precision": chosen.precision}
        own = WORKLOADS[name] | given | ({"model": chosen.model} if chosen.model else {})
        with cores.training():
            figures = _measure(f"{name}, {own['model']}, {chosen.device}", own, cores, num_pairs, block_s)
        result |= {f"{key}_{name}": value for key, value in figures.items()}
        if name == names[0]:
            result |= figures
    result |= {"load_after": os.getloadavg(), "machine": machine()}
    print(json.dumps(result))
    return result


def _measure(title: str, workload: dict[str, Any], cores: Cores, num_pairs: int, block_s: float) -> dict[str, Any]:
    """The figures of one workload, by key."""
    workload = workload | {"precision": _precision(workload)}
    batch_size = workload["batch_size"]
    balance = find_balance(workload, cores)
    per_selected = max(1, min(MOST_PER_SELECTED, int(LOAD * balance.candidates / batch_size)))
    pairs, steps = measure_step_ratio(
        workload, cores, num_pairs=num_pairs, block_s=block_s, candidates_per_selected=per_selected
    )
    scored_in = f"scored in {workload['precision']}"
    print_table(f"{title}: stale step over uniform step, {scored_in}", steps.rows(pairs))
    overlap = measure_overlap(workload, cores, balance.candidates, num_pairs=num_pairs, block_s=block_s)
    print_table(f"{title}: stale run over the longer of its parts, {scored_in}", overlap.rows())
    gap = steps.gap_fraction
    return {
        "step_ratio": round(pairs.ratio, 3),
        "scored_fraction": round(steps.scored_fraction, 4),
        "waited_fraction": round(steps.waited_fraction, 4),
        "overlap_ratio": round(overlap.pairs.ratio, 3),
        "gap_fraction": None if gap is None else round(gap, 4),
        "precision": workload["precision"],
        "candidates_per_selected": per_selected,
    }


def _precision(workload: dict[str, Any]) -> str:
    """What `auto` stands for here, for all processes alike."""
    options = trainer_options(workload)
    set_threads(options.num_threads)
    if options.precision != "auto":
        return options.precision
    source = open_source(options)
    model = make_model(options, source).to(options.device)
    return choose_precision(model, find_head(model, options.head), source)


if __name__ == "__main__":
    main()
