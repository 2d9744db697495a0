"""The exact mode: a stale run over real processes does bit for bit what the fresh run does.

Whatever breaks the service shows here first: an order that differs, a pixel, weights that did not arrive or arrived
mixed, a score of another version, a chunk lost, taken twice or out of turn.
"""

import pytest
import torch

from tests.service.processes import Processes

LOCKSTEP = ("--push-every", "1", "--fallback", "wait")

WHOLE, SPLIT = ("--candidates", "128", "--chunk-size", "128"), ("--candidates", "128", "--chunk-size", "32")

# Steps, what both runs are told, and what the stale one is told besides.
RUNS = {
    "digits by reference": (200, WHOLE, ()),
    "augmented digits as payload": (
        200,
        (*WHOLE, "--method", "loss", "--augment.crop-padding", "1", "--augment.flip", "--augment.cutout", "3"),
        ("--transfer", "payload"),
    ),
    "synthetic classes, two scorers, several chunks a step": (
        200,
        (*SPLIT, "--data", "synthetic", "--method", "entropy", "--optimizer", "adamw", "--lr", "0.01"),
        ("--scorers", "2"),
    ),
    "coins, two chunks a step or so": (
        120,
        ("--candidates", "48", "--chunk-size", "48", "--method", "selective-backprop"),
        (),
    ),
    "importance sampling with weights": (
        120,
        ("--candidates", "96", "--chunk-size", "96", "--method", "gradient-norm", "--selection.tau-threshold", "1.3"),
        (),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_lockstep_run_over_processes_equals_the_fresh_run_bitwise(name: str, processes: Processes) -> None:
    steps, shared, of_stale = RUNS[name]
    # A queue is bounded by the staleness of what waits in it, in the fresh run as well.
    shared = (*shared, "--max-staleness", "0", "--steps", str(steps), "--log.trace", "--seed", "3")
    start = processes.run if "--scorers" in of_stale else processes.service  # once with all that the command does
    stale_run = start("stale", *shared, *LOCKSTEP, *of_stale)
    fresh_run = processes.trainer("fresh", *shared, "--mode", "fresh")
    fresh_run.succeeds()
    stale_run.succeeds()

    fresh, stale = processes.trace("fresh"), processes.trace("stale")
    assert [line["step"] for line in fresh] == list(range(steps))
    selecting = steps - steps // 20 - steps // 10  # warm-up and annealing are on
    assert [line["origin"] for line in fresh].count("fresh") == selecting
    assert [line["origin"] for line in stale].count("stale") == selecting
    for key in ("step", "ids", "losses"):
        differing = [one["step"] for one, other in zip(fresh, stale, strict=True) if one[key] != other[key]]
        assert differing == [], f"{key} differ first at step {differing[0]}"

    of_fresh, of_stale_run = (torch.load(processes.folder / out / "model.pt") for out in ("fresh", "stale"))
    assert of_fresh.keys() == of_stale_run.keys()
    unequal = [key for key, value in of_fresh.items() if not torch.equal(value, of_stale_run[key])]
    assert unequal == []

    summary = processes.summary("stale")
    assert summary["leases"]["consumed"] == summary["leases"]["leased"]
    assert summary["samples_scored"] == processes.summary("fresh")["samples_scored"]
    for cost in ("training", "scoring"):
        assert summary["flops"][cost] == processes.summary("fresh")["flops"][cost], cost
    assert (summary["staleness_max"], summary["fallbacks"], summary["selected_fraction"]) == (0, 0, 1.0)
    assert summary["accuracy"] == processes.summary("fresh")["accuracy"]
