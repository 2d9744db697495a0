"""The exact mode: a stale run over real processes does bit for bit what the fresh run does.

Whatever breaks the service shows here first: an order that differs, a pixel, weights that did not arrive or arrived
mixed, a score of another version, a chunk lost, taken twice or out of turn.
"""

import pytest
import torch

from tests.service.processes import Processes

STEPS = 200
LOCKSTEP = ("--push-every", "1", "--max-staleness", "0", "--fallback", "wait")

WHOLE, SPLIT = ("--candidates", "128", "--chunk-size", "128"), ("--candidates", "128", "--chunk-size", "32")

# What both runs are told, and what the stale one is told besides.
RUNS = {
    "digits by reference": (WHOLE, ()),
    "augmented digits as payload": (
        (*WHOLE, "--method", "loss", "--augment.crop-padding", "1", "--augment.flip", "--augment.cutout", "3"),
        ("--transfer", "payload"),
    ),
    "synthetic classes, two scorers, several chunks a step": (
        (*SPLIT, "--data", "synthetic", "--method", "entropy", "--optimizer", "adamw", "--lr", "0.01"),
        ("--scorers", "2"),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_lockstep_run_over_processes_equals_the_fresh_run_bitwise(name: str, processes: Processes) -> None:
    shared, of_stale = RUNS[name]
    shared = (*shared, "--steps", str(STEPS), "--log.trace", "--seed", "3")
    stale_run = processes.run("stale", *shared, *LOCKSTEP, *of_stale)
    fresh_run = processes.trainer("fresh", *shared, "--mode", "fresh")
    fresh_run.succeeds()
    stale_run.succeeds()

    fresh, stale = processes.trace("fresh"), processes.trace("stale")
    assert [line["step"] for line in fresh] == list(range(STEPS))
    selecting = STEPS - STEPS // 20 - STEPS // 10  # warm-up and annealing are on
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
    assert (summary["staleness_max"], summary["fallbacks"], summary["selected_fraction"]) == (0, 0, 1.0)
    assert summary["accuracy"] == processes.summary("fresh")["accuracy"]
