"""What scoring costs, as ratios within one run: `python -m tests.bench.bench_scorer [--data NAME --data-root FOLDER]`.

    bf16_speedup      samples a second over a bare float32 eager forward loop                          at least 3
    int8_speedup      likewise; both with AMX or AVX512 for that precision, else they are reported     at least 7
    service_overhead  scoring a chunk through leases over the bare forward pass of its precision       at most 1.1
    bf16_overlap      share of float32's selection by mms, 64 of 640, on ResNet-8 after 500 steps      at least .95
    int8_overlap      likewise                                                                         at least .85
    bf16_loss_overlap, int8_loss_overlap: of the selection by loss                                     at least .95

One thread, batches of 256, the worse of both models, medians of pairs measured in turns. The overhead holds reading,
normalising, all scores, the answer and the wire, with the default options (no augmentation), in the worst precision;
`service_overhead_augmented` adds crops and mirror images. What a machine does not offer is null, with the reason above
the JSON line. With --data cifar10, or imagefolder, real images; else some that are made on the spot.
"""

import argparse
import json
import logging
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.config import DataOptions
from common.data.sources import open_source
from common.devices import pinned
from common.precision.hardware import cpu_has_bf16, cpu_has_int8
from tests.bench.forms import AUGMENT, Subject, measure_parts
from tests.bench.leases import measure_service
from tests.bench.measure import Cores, Pairs, machine, print_table
from tests.bench.overlaps import Agreement, measure_overlaps, train

LOW = ("bf16", "int8")
QUICK_AGREEMENT = Agreement(steps=2, chunks=2, candidates=64, selected=8)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints tables and a JSON line; returns what the line holds."""
    chosen = _arguments(argv)
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    cores, workload = Cores.pick(), _workload(chosen)
    source = open_source(DataOptions(**workload))
    result: dict[str, Any] = {"bench": "scorer", "data": source.name, "batch": chosen.batch, "pairs": chosen.pairs}
    result["load_before"] = os.getloadavg()
    figures: dict[str, Any] = {}
    for name in chosen.models:
        subject = Subject(name, source, chosen.batch)
        with pinned(cores.scorer):
            subject.make_forms(("float32", *LOW))
            figures |= _speeds(subject, chosen)
        if chosen.service:
            figures |= _overheads(subject, workload, cores, chosen)
    figures |= _overlaps(
        Subject(chosen.models[0], source, chosen.batch), QUICK_AGREEMENT if chosen.quick else Agreement()
    )
    result |= _headline(figures, chosen) | figures
    result |= {"load_after": os.getloadavg(), "machine": machine()}
    print(json.dumps(result))
    return result


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_scorer", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", help="source of the images, as for `marginstream run`; by default some made on the spot"
    )
    parser.add_argument("--data-root", type=Path, help="where they are")
    parser.add_argument("--models", nargs="+", default=["resnet8", "resnet44"], help="the first one is trained, too")
    parser.add_argument("--pairs", type=int, help="pairs of blocks for each ratio (default 7, with --quick 1)")
    parser.add_argument("--block-s", type=float, help="seconds of a timed block (default 2, with --quick 0)")
    parser.add_argument("--no-service", dest="service", action="store_false", help="start no scorer process")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    chosen = parser.parse_args(argv)
    chosen.batch = 16 if chosen.quick else 256
    chosen.pairs = chosen.pairs or (1 if chosen.quick else 7)
    chosen.block_s = (0.0 if chosen.quick else 2.0) if chosen.block_s is None else chosen.block_s
    return chosen


def _workload(chosen: argparse.Namespace) -> dict[str, Any]:
    """The data as options say it."""
    if chosen.data is not None:
        return {"data": chosen.data, "data_root": chosen.data_root}
    return {"data": "digits" if chosen.quick else "tests.bench.images:open_images"}


def _speeds(subject: Subject, chosen: argparse.Namespace) -> dict[str, float]:
    """{"bf16_speedup_resnet8": ...}, and where the time of a chunk goes, as a table."""
    speedups = {
        precision: subject.speedup(precision, chosen.pairs, chosen.block_s)
        for precision in LOW
        if precision in subject.forms
    }
    rows = [(precision, _times(pairs, "bare float32")) for precision, pairs in speedups.items()]
    rows += [(precision, f"none: {why}") for precision, why in subject.refused.items()]
    print_table(f"{subject.name}: times as many samples a second as the bare float32 loop", rows)
    for precision in subject.forms:
        print_table(
            f"{subject.name}, {precision}: a chunk of {subject.batch} in parts", measure_parts(subject, precision)
        )
    return {f"{precision}_speedup_{subject.name}": round(pairs.ratio, 3) for precision, pairs in speedups.items()}


def _overheads(
    subject: Subject, workload: dict[str, Any], cores: Cores, chosen: argparse.Namespace
) -> dict[str, float]:
    """{"service_overhead_int8_resnet8": ...}; with augmentation in the precision that comes last, the fastest."""
    wanted = {precision: (precision, workload) for precision in subject.forms}
    wanted["augmented"] = (list(subject.forms)[-1], workload | {"augment": AUGMENT})
    overheads = {
        key: measure_service(subject, precision, data, cores, num_pairs=chosen.pairs, block_s=chosen.block_s)
        for key, (precision, data) in wanted.items()
    }
    rows = [(key, _times(pairs, "through leases")) for key, pairs in overheads.items()]
    print_table(f"{subject.name}: a chunk through leases over its forward pass alone", rows)
    return {f"service_overhead_{key}_{subject.name}": round(pairs.ratio, 3) for key, pairs in overheads.items()}


def _overlaps(subject: Subject, agreement: Agreement) -> dict[str, float]:
    """{"bf16_overlap": ..., "bf16_loss_overlap": ...} on the trained model."""
    loss = train(subject, agreement.steps)
    subject.make_forms(LOW)
    overlaps = measure_overlaps(subject, list(subject.forms), agreement)
    print_table(
        f"{subject.name} after {agreement.steps} steps (loss {loss:.3f}): selection shared with float32, "
        f"{agreement.chunks} chunks of {agreement.candidates} to {agreement.selected}",
        [(precision, f"mms {of['mms']:.3f}, loss {of['loss']:.3f}") for precision, of in overlaps.items()],
    )
    shares = {f"{precision}_overlap": of["mms"] for precision, of in overlaps.items()}
    shares |= {f"{precision}_loss_overlap": of["loss"] for precision, of in overlaps.items()}
    return {key: round(share, 4) for key, share in shares.items()}


def _headline(figures: dict[str, float], chosen: argparse.Namespace) -> dict[str, float | None]:
    """The worse of the models under the keys without one; null, with the reason printed, for what was not measured."""
    headline: dict[str, float | None] = {}
    for precision in LOW:
        measured = [value for key, value in figures.items() if key.startswith(f"{precision}_speedup_")]
        headline[f"{precision}_speedup"] = min(measured, default=None)
        headline |= {key: figures.get(key) for key in (f"{precision}_overlap", f"{precision}_loss_overlap")}
    for key, kinds in (("service_overhead", ("float32", *LOW)), ("service_overhead_augmented", ("",))):
        starts = tuple(f"{key}_{kind}".rstrip("_") + "_" for kind in kinds)
        headline[key] = max((value for name, value in figures.items() if name.startswith(starts)), default=None)
    for key in (key for key, value in headline.items() if value is None):
        reason = "--no-service" if key.startswith("service") and not chosen.service else "no such precision here"
        print(f"{key} is null: {reason}")
    headline["bf16_in_hardware"], headline["int8_in_hardware"] = cpu_has_bf16(), cpu_has_int8()
    return headline


def _times(pairs: Pairs, first: str) -> str:
    times = (
        f"{first} {1e3 * statistics.median(pairs.first):.1f} ms, alone {1e3 * statistics.median(pairs.second):.1f} ms"
    )
    return f"{pairs.ratio:.3f}, quartiles {pairs.spread}; {times}"


if __name__ == "__main__":
    main()
