"""What runs out first, as `bench_scale` prints it: measured costs of messages, and the model of `scale_model`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from common.buckets import BUCKET_BYTES
from tests.bench.measure import print_table
from tests.bench.scale_costs import session_costs
from tests.bench.scale_model import FORWARD, MOVES, Costs, Scenario, fewest_scorers, io_share, most_scorers, used
from tests.bench.scale_service import Scaled, Totals
from tests.bench.sending import sending_s, sending_s_per_byte
from tests.trainer.lease_events import Events, Setting, fairness

WAKE_S, SCORER_MESSAGE_S = 100e-6, 300e-6  # where the service was not measured in the same run: of one on 2 cores
PARAMETERS = {"1 million": 1e6, "25 million": 25e6, "100 million": 1e8, "1 billion": 1e9}
STEP_S = {"1 million": 0.05, "25 million": 0.1, "100 million": 0.3, "1 billion": 1.0}  # assumed, on one accelerator
BYTES_A_PARAMETER = 2  # bf16
FORWARD_SHARE = 1 / 3  # of a training step of the same samples
SCORERS, RANKS = (1, 4, 16, 64, 256, 1000), (1, 8, 64)


def report_limits(scaled: Scaled | None, *, quick: bool) -> dict[str, Any]:
    """Measures what a message costs at up to 1,000 sessions, and prints what runs out first.

    Args:
        scaled: a measured run, from which the cost of sockets comes and against which the model is held.
    """
    sessions = session_costs([1, 4] if quick else [1, 8, 64, 256, 1000], 2 if quick else 12)
    names = ("chunk_s", "beat_in_s", "beat_out_s", "tick_s", "hand_over_s", "fetch_s", "bucket_s")
    rows = [
        (f"{num} sessions", ", ".join(f"{name[:-2]} {1e6 * getattr(own, name):.0f}" for name in names))
        for num, own in sessions.items()
    ]
    print_table("the I/O thread without sockets, µs (hand-over, beats: for each scorer)", rows)
    small_s, bucket_s = sending_s(1 << 10), sending_s(BUCKET_BYTES)
    encrypted, plain = (sending_s_per_byte(0.1 if quick else 1.0, encrypted=one) for one in (True, False))
    costs = Costs(sessions, WAKE_S, small_s, bucket_s, encrypted, SCORER_MESSAGE_S)
    session_us = {num: {name: round(1e6 * getattr(own, name), 2) for name in names} for num, own in sessions.items()}
    result: dict[str, Any] = {"session_us": session_us}
    result["send_gb_per_s"] = {"encrypted": _rate(encrypted), "plain": _rate(plain)}
    if scaled is not None:
        costs = _calibrated(costs, scaled)
        predicted = io_share(costs, _as_run(scaled, scaled.many), scaled.num, pushes=True)
        measured = scaled.many.share(scaled.many.io_s)
        result["io_predicted"], result["io_measured"] = round(predicted, 4), round(measured, 4)
        print_table(
            f"the model held against the run with {scaled.num} scorers",
            [
                ("a wake-up, from the run with one", f"{1e6 * costs.wake_s:.0f} µs"),
                ("I/O thread, predicted", f"{predicted:.1%} of a core"),
                ("I/O thread, measured", f"{measured:.1%} of a core"),
                ("error", f"{predicted / measured - 1:+.0%}"),
            ],
        )
    sends = [("a small message", f"{1e6 * small_s:.0f} µs"), ("a bucket of 1 MiB", f"{1e6 * bucket_s:.0f} µs")]
    sends += [
        (f"a ZeroMQ thread, {name}", f"{_rate(one)} GB/s") for name, one in (("encrypted", encrypted), ("plain", plain))
    ]
    print_table("sending", sends)
    return result | _print_grid(costs)


def report_events(*, quick: bool) -> dict[str, Any]:
    """Leases in simulated time: shares and staleness where scorers are many, and differ in speed."""
    rows, result = [], {}
    for num in (16,) if quick else (16, 64, 1000):
        for fetch_steps in (0, 16):
            speeds = [0.1 * (1 + number % 4) for number in range(num)]
            run = Events(Setting(speeds, step_s=0.1, steps=60 if quick else 1200, fetch_s=0.1 * fetch_steps))
            index, mean = fairness(run.served), sum(run.staleness) / max(1, len(run.staleness))
            name = f"{num} scorers, weights {fetch_steps} steps on their way"
            used = (
                f"staleness {mean:.1f}, at most {max(run.staleness, default=0)} steps; {run.fallbacks} steps fell back"
            )
            rows.append((name, f"fairness {index:.3f}; {used}"))
            result[f"{num}, {fetch_steps}"] = [round(index, 4), round(mean, 2), run.fallbacks]
    print_table("leases in simulated time, scorers of four speeds, the fastest a step for a chunk", rows)
    return {"events": result}


def _print_grid(costs: Costs) -> dict[str, Any]:
    """What is used most, for each model and number of scorers and ranks."""
    grid: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    firsts: set[str] = set()
    for name, parameters in PARAMETERS.items():
        scenario = Scenario(
            weights_bytes=BYTES_A_PARAMETER * parameters,
            step_s=STEP_S[name],
            chunk_s=FORWARD_SHARE * 2 * STEP_S[name],
        )
        every, skipping = (most_scorers(costs, scenario, max(RANKS), may_skip=skips) for skips in (False, True))
        limits[name] = {"needed": {ranks: fewest_scorers(scenario, ranks) for ranks in RANKS}}
        limits[name] |= {"every_version": every, "versions_skipped": skipping}
        needed = ", ".join(f"{num} for {ranks} ranks" for ranks, num in limits[name]["needed"].items())
        rows = [("scorers needed", needed), ("with every version, up to", f"{every[0]}, then {every[1]}")]
        rows += [("with versions skipped, up to", f"{skipping[0]}, then {skipping[1]}")]
        spread = most_scorers(costs, replace(scenario, serving=max(RANKS)), max(RANKS))
        limits[name] |= {"weights_of_all_ranks": spread}
        rows += [(f"if {max(RANKS)} ranks handed out weights, up to", f"{spread[0]}, then {spread[1]}")]
        for num in SCORERS:
            shares = {ranks: used(costs, scenario, num, ranks) for ranks in RANKS}
            grid |= {f"{name}, {num}, {ranks}": _most(own) for ranks, own in shares.items()}
            forward = ", ".join(f"{own[FORWARD]:.2f}" for own in shares.values())
            others = _most({what: share for what, share in shares[max(RANKS)].items() if what != FORWARD})
            rows.append((f"{num} scorers", f"forward passes {forward}; {others[1]:.2f} {others[0]}"))
            firsts |= {what for own in shares.values() for what, share in own.items() if share > 1}
        name = f"{name} parameters in bf16, {STEP_S[name]} s a step, {8e-9 * scenario.bandwidth:.0f} Gbit/s"
        print_table(f"{name}: share used, with {', '.join(map(str, RANKS))} ranks", rows)
    usual = most_scorers(costs, Scenario(0.0, math.inf, 0.0, open_files=1024), 1)[0]
    print_table("open files", [("where a process may have 1,024, the usual soft limit", f"up to {usual} scorers")])
    print_table("what runs out, and what moves it", [(what, MOVES[what]) for what in sorted(firsts)])
    return {"limits": limits, "grid": grid}


def _most(shares: Mapping[str, float]) -> tuple[str, float]:
    """The resource that is used most."""
    name = max(shares, key=lambda one: shares[one])
    return name, round(shares[name], 3)


def _calibrated(costs: Costs, scaled: Scaled) -> Costs:
    """With the cost of a wake-up that makes the model right for one scorer."""
    run = _as_run(scaled, scaled.one)
    without = io_share(replace(costs, wake_s=0.0), run, 1, pushes=True)
    per_second = io_share(replace(costs, wake_s=1.0), run, 1, pushes=True) - without  # wake-ups
    wake_s = max(0.0, (scaled.one.share(scaled.one.io_s) - without) / per_second)
    return replace(costs, wake_s=wake_s, scorer_message_s=scaled.one.crowd_s / max(1, 2 * scaled.one.chunks))


def _as_run(scaled: Scaled, totals: Totals) -> Scenario:
    """What an arm did: its own step time."""
    step_s = totals.elapsed_s / totals.steps
    return Scenario(scaled.weights_bytes, step_s, math.nan, chunks_per_step=round(totals.chunks / totals.steps))


def _rate(seconds_per_byte: float) -> float:
    """GB a second."""
    return round(1e-9 / seconds_per_byte, 2) if seconds_per_byte else 0.0
