"""Time to a held-out accuracy: `python -m tests.bench.bench_time_to_target --data-root DIR [--out FOLDER]`.

    stale_speedup   training time of the best plain arm over that of stale selection         goal: at least 3 on MNIST
    fresh_speedup   the same of fresh selection, scored in the training process

The time of an arm is that of the smallest budget of steps, on a geometric grid, whose final held-out accuracy (the mean
over the seeds, learning rate fully decayed) reaches the target. It is training time, without start-up and evaluation;
start-up is shown apart. All arms use the same cores: plain training one thread, all threads, or two processes with half
of each batch; fresh selection the options of --fresh, stale selection a trainer and its scorers with those of --stale.
Runs are made one at a time. After the search the arms take turns in rounds with new seeds, from which times are taken.

Options of `marginstream run` hold for all arms (--data, --model, --batch-size, --schedule.name, ...). With --lrs each
group of arms (plain, fresh, stale) gets the best learning rate of one grid. Runs that are complete in --out are not
repeated: the same command goes on where it stopped, and --max-minutes bounds one call.
"""

import argparse
import contextlib
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.config.compare import CompareFlags
from common.config.loading import load_options, merge_tables
from common.errors import ConfigError, MarginstreamError
from common.experiment.children import StopSignals
from common.experiment.compare.show import make_board_display
from tests.bench.measure import machine
from tests.bench.target.arena import Arena
from tests.bench.target.arms import ARMS, make_arms, usable_cores
from tests.bench.target.outcome import print_outcome, result_of
from tests.bench.target.runs import Runs, Stopped
from tests.bench.target.search import Grid, Rule
from tests.bench.target.tuning import Tuned, tune

DEFAULTS: dict[str, Any] = {"data": "mnist", "model": "resnet8"}
MNIST_TARGET = 0.99
GROUPS = {
    "plain": "",
    "fresh": "candidates=160",  # five for each selected sample, at the default batch size; ten cost twice as much
    # Ten, as scorers have the time. With older scores of so many candidates training oscillates; two steps are what it
    # takes never to wait.
    "stale": "candidates=320,precision=int8,push-every=1,max-staleness=2,fallback=wait",
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints a table and a JSON line; returns what the line holds."""
    chosen, given = _read(sys.argv[1:] if argv is None else argv)
    rule = Rule(chosen.target, num_seeds=chosen.seeds)
    grid = Grid(growth=chosen.growth, last_steps=chosen.max_steps)
    starts = {group: grid.place(chosen.start_steps // (1 if group == "plain" else 2)) for group in GROUPS}
    until = math.inf if chosen.max_minutes is None else time.monotonic() + 60 * chosen.max_minutes
    options = {group: getattr(chosen, group) for group in GROUPS}
    tuned: dict[str, Tuned] = {}
    with contextlib.ExitStack() as opened:
        stop = opened.enter_context(StopSignals())
        runs = Runs(chosen.out.absolute(), stop, opened.enter_context(make_board_display(sys.stdout)))
        try:
            if chosen.lrs:
                tuned = _tune(chosen, given, options, runs, rule, {g: grid.steps(place) for g, place in starts.items()})
                options = {group: _and_lr(options[group], tuned.get(group)) for group in GROUPS}
            arms = make_arms(given, options, chosen.arms, cores=usable_cores())
            arena = Arena(arms, runs, rule, grid, starts=starts, until=until)
            is_complete = arena.search() and arena.time(chosen.rounds)
        except Stopped:
            raise SystemExit(f"stopped by {stop.received[0].name}; the same command goes on where it stopped") from None
    print_outcome(arena, tuned)
    result = result_of(arena, tuned, random.Random(0)) | {"is_complete": is_complete}
    result |= {"given": given, "options": options, "machine": machine()}
    print(json.dumps(result, default=str))
    return result


def _tune(
    chosen: argparse.Namespace,
    given: dict[str, Any],
    options: dict[str, str],
    runs: Runs,
    rule: Rule,
    steps: dict[str, int],
) -> dict[str, Tuned]:
    """By group, each with the first of its arms."""
    tuned = {}
    arms = make_arms(given, options, chosen.arms, cores=usable_cores())
    for group in dict.fromkeys(arm.group for arm in arms):
        first = next(index for index, arm in enumerate(arms) if arm.group == group)
        variants = {
            lr: make_arms(
                given, options | {group: _and(options[group], f"lr={lr:g}")}, chosen.arms, cores=usable_cores()
            )[first]
            for lr in chosen.lrs
        }
        tuned[group] = tune(variants, runs, steps[group], range(rule.num_seeds))
    return tuned


def _and_lr(words: str, tuned: Tuned | None) -> str:
    return words if tuned is None else _and(words, f"lr={tuned.lr:g}")


def _and(words: str, more: str) -> str:
    return f"{words},{more}" if words else more


def _read(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The flags of the benchmark, and the options that all runs share as a nested table."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="bench_time_to_target",
        description=__doc__.splitlines()[0],
        epilog="Flags of `marginstream run` hold for all arms: --data, --data-root, --model, --lr, --optim.momentum …",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-target"), help="folder of the runs")
    parser.add_argument("--target", type=float, help="held-out accuracy, 0 to 1; .99 for MNIST")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    for group, words in GROUPS.items():
        shown = f"; {words}" if words else ""
        parser.add_argument(
            f"--{group}", default=words, metavar="KEY=VALUE,...", help=f"options of the {group} arms only{shown}"
        )
    parser.add_argument("--lrs", nargs="+", type=float, default=[], help="grid of peak learning rates, for each group")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each budget, seeds 0, 1, ...")
    parser.add_argument(
        "--rounds", type=int, default=7, help="timed runs of each arm at its budget, with seeds of their own"
    )
    parser.add_argument(
        "--start-steps", type=int, default=1000, help="budget tried first; selecting arms try half of it"
    )
    parser.add_argument("--growth", type=float, default=1.15, help="ratio of neighbouring budgets")
    parser.add_argument("--max-steps", type=int, default=20_000, help="largest budget")
    parser.add_argument("--max-minutes", type=float, help="start no run after this time; report what is known by then")
    chosen, rest = parser.parse_known_args(argv)
    try:
        given = merge_tables(DEFAULTS, load_options(CompareFlags, rest, prog=parser.prog).given)
    except MarginstreamError as error:
        parser.error(str(error))
    if chosen.target is None and given["data"] == "mnist":
        chosen.target = MNIST_TARGET
    if chosen.target is None or not 0 < chosen.target < 1:
        parser.error(f"--target must be an accuracy between 0 and 1 for --data {given['data']}, got {chosen.target}")
    if given["data"] == "mnist" and "data_root" not in given:
        parser.error("--data mnist needs --data-root, the folder that holds MNIST/")
    if "steps" in given:
        parser.error("--steps is what this benchmark looks for; leave it out, or give --start-steps")
    return chosen, given


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, MarginstreamError) as error:
        raise SystemExit(f"error: {error}") from error
