"""What the ledger costs in memory and time: `python -m tests.bench.bench_ledger [--samples N] [--quick]`.

    bytes_per_sample   of all fields                                                                      at most 24
    *_us               one call for a chunk of 256 random ids; beside it, on the same array and in turns,
                       a bare numpy gather `array[ids]` and a bare scatter `array[ids] = x`
    *_ratio            the call over gather + scatter (losses_of: over the gather)

On a large ledger every access misses the caches; a small one (100,000 samples) shows how much of the time that is.
Every call and every reference has ids of its own, so that none finds what another has fetched. Times are medians with
quartiles.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.devices import pinned
from common.order import Order
from tests.bench.measure import Cores, Pairs, machine, print_table
from trainer.ledger import FIELDS, Ledger

CHUNK = 256
MAX_AGE = 3
SMALL = 100_000
BYTES_PER_SAMPLE = 17
SLACK_BYTES = 512 << 20


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints tables and a JSON line; returns what the line holds."""
    parser = argparse.ArgumentParser(prog="bench_ledger", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, help="of the large ledger (default 100 million, with --quick 1 million)")
    parser.add_argument("--calls", type=int, help="timed calls of each method (default 3000, with --quick 50)")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    chosen = parser.parse_args(argv)
    num_samples = chosen.samples or (1_000_000 if chosen.quick else 100_000_000)
    num_calls = chosen.calls or (50 if chosen.quick else 3000)
    if num_samples < SMALL:
        parser.error(f"--samples must be at least {SMALL:,}, the size of the small ledger; got {num_samples:,}")
    check_memory(num_samples)

    result: dict[str, Any] = {"bench": "ledger", "load_before": os.getloadavg(), "calls": num_calls, "chunk": CHUNK}
    with pinned(Cores.pick().trainer):
        result["large"] = _measure(num_samples, num_calls)
        result["small"] = _measure(SMALL, num_calls)
    result |= {"load_after": os.getloadavg(), "machine": machine()}
    print(json.dumps(result))
    return result


def check_memory(num_samples: int) -> None:
    """Ends the program where the ledger and one copy of it do not fit; silent where the system does not say."""
    needed = 2 * BYTES_PER_SAMPLE * num_samples + SLACK_BYTES
    available = available_bytes()
    if available is not None and available < needed:
        fitting = max(0, (available - SLACK_BYTES) // (2 * BYTES_PER_SAMPLE))
        sys.exit(
            f"a ledger of {num_samples:,} samples and the copy that a checkpoint takes need {needed / 1e6:,.0f} MB "
            f"of memory, {available / 1e6:,.0f} MB are available; --samples {fitting} would fit"
        )


def available_bytes(path: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that can be had without swapping; None where the system has no such file."""
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10


def resident_bytes() -> int | None:
    """Memory that this process has touched; None where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else None


def _measure(num_samples: int, num_calls: int) -> dict[str, float]:
    """Memory and times of one ledger, printed and by name."""
    before = resident_bytes()
    ledger = Ledger(num_samples, FIELDS)  # writes every page: "unknown" is not zero
    after = resident_bytes()
    assert all(array is not None for array in (ledger.loss, ledger.age, ledger.seen, ledger.selected))
    ids = _Ids(num_samples)
    results: dict[str, Any] = {"samples": num_samples}
    rows = [("nbytes", f"{ledger.nbytes / 1e6:,.1f} MB, {ledger.nbytes / num_samples:.2f} bytes a sample")]
    results["bytes_per_sample"] = ledger.nbytes / num_samples
    if before is not None and after is not None:
        grown = after - before
        rows.append(("resident", f"{grown / 1e6:,.1f} MB more, {grown / num_samples:.2f} bytes a sample"))
        results["resident_bytes_per_sample"] = round(grown / num_samples, 2)

    num_first = min(num_calls, num_samples // CHUNK // 4)  # while there are samples that were never visited
    calls: list[tuple[str, int, np.ndarray, Any, Callable[[np.ndarray], Any]]] = [
        ("plan_visit_first", num_first, ledger.age, np.uint8(255), lambda ids: ledger.plan_visit(ids, MAX_AGE)),
        ("plan_visit", num_calls, ledger.age, np.uint8(1), lambda ids: ledger.plan_visit(ids, MAX_AGE)),
        ("scored", num_calls, ledger.loss, _VALUES, lambda ids: ledger.scored(ids, losses=_VALUES, scores=_VALUES)),
        ("visited", num_calls, ledger.seen, np.uint32(1), ledger.visited),
        ("trained", num_calls, ledger.loss, _VALUES, lambda ids: ledger.trained(ids, _VALUES)),
        ("losses_of", num_calls, ledger.loss, None, ledger.losses_of),
    ]
    for name, num, array, values, call in calls:
        if name == "plan_visit":
            _fill(ledger)
        times, row = _time(num, ids, array, values, call)
        rows.append((name, row))
        results |= {f"{name}_us": round(statistics.median(times.first), 2), f"{name}_ratio": round(times.ratio, 2)}
    started = time.perf_counter()
    ledger.state_dict()
    results["state_dict_s"] = round(time.perf_counter() - started, 4)
    rows.append(
        (
            "state_dict",
            f"{results['state_dict_s'] * 1e3:,.1f} ms, once; the lock is held for the copying, not for the new pages",
        )
    )
    print_table(f"ledger of {num_samples:,} samples, all fields; chunks of {CHUNK} random ids", rows)
    return results


_VALUES = np.linspace(0, 1, CHUNK, dtype=np.float32)


class _Ids:
    """Chunk after chunk of distinct random ids, all samples before any comes again."""

    def __init__(self, num_samples: int) -> None:
        self._order = Order(num_samples, 0, "bench")
        self._next = 0

    def __call__(self) -> np.ndarray:
        self._next += CHUNK
        return self._order.ids(np.arange(self._next - CHUNK, self._next))


def _fill(ledger: Ledger) -> None:
    """Puts a ledger into the state of a later epoch."""
    for array in (ledger.loss, ledger.score, ledger.seen, ledger.selected):
        array[:] = 1
    ledger.age[:] = np.resize(np.arange(MAX_AGE, dtype=np.uint8), len(ledger.age))


def _time(num: int, ids: _Ids, array: np.ndarray, values: Any, call: Callable[[np.ndarray], Any]) -> tuple[Pairs, str]:
    """Times of a call and of its reference in turns, microseconds, and a row for the table."""
    gathers: list[float] = []
    scatters: list[float] = []

    def reference() -> float:
        gathers.append(_timed(lambda ids: array[ids], ids()))
        if values is None:
            return gathers[-1]
        scatters.append(_timed(lambda ids: array.__setitem__(ids, values), ids()))
        return gathers[-1] + scatters[-1]

    Pairs.measure(min(num, 20), lambda: _timed(call, ids()), reference)  # warm-up
    gathers.clear()
    scatters.clear()
    pairs = Pairs.measure(num, lambda: _timed(call, ids()), reference)
    row = f"{_spread(pairs.first)} µs; gather {_spread(gathers)}"
    row += f", scatter {_spread(scatters)}; {pairs.ratio:.1f} times both" if scatters else f"; {pairs.ratio:.1f} times"
    return pairs, row


def _timed(call: Callable[[np.ndarray], Any], ids: np.ndarray) -> float:
    """One call's duration in microseconds."""
    started = time.perf_counter_ns()
    call(ids)
    return (time.perf_counter_ns() - started) / 1e3


def _spread(times: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
