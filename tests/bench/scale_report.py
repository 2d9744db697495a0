"""Many scorers beside a training run, as `bench_scale` prints them: figures with their goals."""

import statistics
from typing import Any

from tests.bench.measure import print_table
from tests.bench.scale_service import PER_SELECTED, Scaled, Totals

FAIR, UNAFFECTED = 0.95, 1.02
VERDICT = {True: "PASSED", False: "MISSED"}


def report_service(scaled: Scaled) -> dict[str, Any]:
    """Prints measured figures beside their goals."""
    one, many, num = scaled.one, scaled.many, scaled.num
    over_one, over_none = scaled.ratio(one), scaled.ratio(scaled.none)
    passed = {
        "fairness": scaled.fairness >= FAIR,
        "step_over_one": over_one <= UNAFFECTED,
        "step_over_none": over_none <= UNAFFECTED,
    }
    fair, alone, plain = (VERDICT[is_met] for is_met in passed.values())
    table = [
        (f"Jain's index of chunks, {num} scorers", f"{scaled.fairness:.4f}; goal at least {FAIR}: {fair}"),
        (f"a step beside {num} / beside one as fast", f"{_spread(scaled.ratios(one))}; goal {UNAFFECTED}: {alone}"),
        (f"a step beside {num} / a plain one", f"{_spread(scaled.ratios(scaled.none))}; goal {UNAFFECTED}: {plain}"),
    ]
    table += [
        ("chunks of a scorer", f"{min(scaled.served)} to {max(scaled.served)}"),
        ("a step beside none, one, many", ", ".join(_ms(arm) for arm in (scaled.none, one, many))),
        ("steps on scored candidates, one, many", f"{_scored(one):.1%}, {_scored(many):.1%}"),
        ("I/O thread, share of a core: one, many", f"{one.share(one.io_s):.1%}, {many.share(many.io_s):.1%}"),
        ("talking while the run stands still, many", f"{scaled.idle_fraction:.1%}"),
        ("ZeroMQ's threads: one, many", f"{one.share(one.zmq_s):.1%}, {many.share(many.zmq_s):.1%}"),
        ("the scorers themselves: one, many", f"{one.share(one.crowd_s):.1%}, {many.share(many.crowd_s):.1%}"),
        ("sent by the trainer: one, many", f"{_megabytes_per_s(one):.1f}, {_megabytes_per_s(many):.1f} MB/s"),
        ("pushes, and pushes skipped, many", f"{many.pushes}, {many.skipped}"),
    ]
    print_table(f"a training run, {PER_SELECTED} candidates for each selected sample, and {num} scorers", table)
    return {
        "num_scorers": num,
        "fairness": round(scaled.fairness, 4),
        "step_over_one": round(over_one, 4),
        "step_over_none": round(over_none, 4),
        "io_fraction": {"one": round(one.share(one.io_s), 4), "many": round(many.share(many.io_s), 4)},
        "idle_fraction": round(scaled.idle_fraction, 4),
        "zmq_fraction": {"one": round(one.share(one.zmq_s), 4), "many": round(many.share(many.zmq_s), 4)},
        "scored_fraction": {"one": round(_scored(one), 4), "many": round(_scored(many), 4)},
        "crowd_fraction": round(many.share(many.crowd_s), 4),
        "pushes_skipped": many.skipped,
        "passed": passed,
    }


def _spread(ratios: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def _ms(totals: Totals) -> str:
    return f"{1e3 * totals.elapsed_s / totals.steps:.2f} ms"


def _scored(totals: Totals) -> float:
    return totals.scored_steps / totals.steps


def _megabytes_per_s(totals: Totals) -> float:
    return totals.bytes_out / totals.elapsed_s / 1e6
