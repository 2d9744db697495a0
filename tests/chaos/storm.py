"""A seeded storm: a run whose scorers, trainer and network are struck at random for minutes, against one left in peace.

    python -m tests.chaos.storm --seed 0 --minutes 2        (make chaos)

For each of `--runs` seeds one run in peace and one in the storm, with real processes: after both every step was trained
once, no chunk twice, and the account of leases balances. Prints what is done as it is done, and ends in one line of
JSON: the acts, the accounts, and the held-out accuracy of both kinds of run, of which the means may differ by a point.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common.environment import describe_environment
from tests.chaos import holding
from tests.chaos.mischief import ACTS, Run
from tests.chaos.relay import Relay
from tests.chaos.verdict import assert_nothing_lost
from tests.preloaded import Preloaded
from tests.service.processes import Process, Processes

DATA = ("--data", "holding:open_held_digits")
RUN = (*DATA, "--batch-size", "32", "--candidates", "128", "--chunk-size", "64", "--fallback", "uniform", "--log.trace",
       "--log.eval-every", "0", "--log.log-every", "20", "--service.silence-s", "2", "--service.lease-s", "3",
       "--checkpoint.every", "50")  # fmt: skip
STEPS_PER_S = 70.0  # of a trainer on a core of its own in a storm; what makes minutes of steps
MOST_POINTS = 1.0
END_S = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others follow")
    parser.add_argument("--minutes", type=float, default=2.0, help="about so long is each run in the storm")
    parser.add_argument("--runs", type=int, default=3, help="seeds: runs of each kind")
    arguments = parser.parse_args()
    with Preloaded() as preloaded:
        result = compare(preloaded, arguments.seed, arguments.runs, round(arguments.minutes * 60 * STEPS_PER_S))
    say(json.dumps(result | {"environment": describe_environment()}))
    return int(abs(result["accuracy_difference_points"]) > MOST_POINTS)


def compare(preloaded: Preloaded, first_seed: int, num_runs: int, steps: int) -> dict[str, Any]:
    """One run of each kind for each seed; fails if anything was lost in one of them."""
    acts: Counter[str] = Counter()
    found: dict[str, list[dict[str, Any]]] = {"peace": [], "storm": []}
    for seed in range(first_seed, first_seed + num_runs):
        for kind in found:
            with tempfile.TemporaryDirectory() as folder, Processes(Path(folder), preloaded) as processes:
                done = run(processes, seed, steps, in_storm=kind == "storm")
                origins = assert_nothing_lost(processes, "out")
                summary = processes.summary("out")
            acts += done
            kept = {name: summary.get(name) for name in ("accuracy", "leases", "refused", "events", "wall_s")}
            found[kind].append(kept | {"seed": seed, "origins": origins})
            say(f"seed {seed} in {kind}: {json.dumps(found[kind][-1])}")
    means = {kind: sum(one["accuracy"] for one in runs) / len(runs) for kind, runs in found.items()}
    return {
        "steps": steps,
        "acts": dict(acts),
        "accuracy": means,
        "accuracy_difference_points": 100 * (means["storm"] - means["peace"]),
        **found,
    }


def run(processes: Processes, seed: int, steps: int, *, in_storm: bool) -> Counter[str]:
    """A run from its start to its end. Returns how often each act was done."""
    shutil.copy(Path(holding.__file__), processes.folder)
    endpoint = processes.endpoint()
    flags = (*RUN, "--steps", str(steps), "--seed", str(seed), "--listen", endpoint)
    lives = [0]

    def start_trainer(goes_on: bool) -> Process:
        lives[0] += 1
        also = ("--resume",) if goes_on else ()
        given = ("-m", "trainer", "--out", "out", "--threads", "1", "--log.no-tensorboard", *flags, *also)
        return processes.start(f"trainer-{lives[0]}", *given)

    with Relay(endpoint) as relay:
        attacked = Run(
            processes, relay, start_trainer, lambda number: processes.scorer(f"scorer-{number}", relay.endpoint, *DATA)
        )
        acts = storm(attacked, random.Random(seed), processes) if in_storm else Counter()
        attacked.trainer.succeeds(END_S)
    return acts


def storm(attacked: Run, draw: random.Random, processes: Processes) -> Counter[str]:
    """One act after the other, at random, until the trainer has ended."""
    done: Counter[str] = Counter()
    processes.reaches("out", 20)
    started = time.monotonic()
    while not attacked.trainer.has_ended:
        act = draw.choice(ACTS)
        say(f"{time.monotonic() - started:6.1f} s, step {processes.step('out')}: {act.__name__}")
        try:
            act(attacked, draw)
        except AssertionError:
            if not attacked.trainer.has_ended:  # else whom it was meant for has ended too
                raise
        done[act.__name__] += 1
        time.sleep(draw.uniform(0.1, 2))
    return done


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
