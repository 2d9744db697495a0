"""`marginstream compare`: plan, run what has not run yet, sum up, say what came out."""

import io
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.config import describe_options
from common.config.compare import CompareOptions
from common.errors import ConfigError
from common.experiment.children import StopSignals
from common.experiment.compare.arms import Arm, read_arms
from common.experiment.compare.budget import affordable_steps, budget_of, check_budget
from common.experiment.compare.cores import with_equal_cores
from common.experiment.compare.runner import Runner
from common.experiment.compare.show import make_board_display
from common.experiment.compare.table import write_tables
from common.experiment.compare.trials import Trial, pilot_of, plan_trials, record_of
from common.experiment.compare.verdict import verdict_of
from common.experiment.compare.workplace import claimed, default_folder
from common.experiment.devices import count_gpus
from common.experiment.display import short
from common.experiment.records import FailedRun, RunRecord
from common.experiment.results import RESULTS, Budget, Results, write_results
from common.experiment.summarise import results_of
from common.experiment.supervise import go_silent

FAILED = 1


@dataclass(frozen=True)
class Comparison:
    """What is to be done.

    Attributes:
        root: absolute.
        command: that goes on with it, as typed.
        notes: for whoever reads the results.
    """

    options: CompareOptions
    root: Path
    command: str
    arms: tuple[Arm, ...]
    budget: Budget
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        first = self.arms[0].options
        seeds = len(self.options.seeds)
        arms = ", ".join(arm.name for arm in self.arms)
        return f"{first.model} on {first.data}: {arms}, {seeds} seed{'s' if seeds > 1 else ''}"

    def trials(self, arms: Sequence[Arm]) -> list[Trial]:
        return plan_trials(arms, self.options.seeds, self.root)


def main(options: CompareOptions, words: Sequence[str]) -> int:
    """The exit code: 0 if every run ended in order, 1 if one failed, 130, 143 or 129 after a signal.

    Args:
        words: the flags, as typed.

    Raises:
        ConfigError: options that contradict each other or what the folder holds.
    """
    comparison = plan(options, words)
    if options.dry_run:
        sys.stdout.write(describe(comparison))
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode shows ? for a dash
    with claimed(comparison.root, options), StopSignals() as stop:
        _say(f"comparison folder {short(comparison.root)}")
        arms, errors = _afford(comparison, stop)
        if not stop.received:
            errors |= _run(comparison, arms, stop, errors)
        results, records = sum_up(comparison, arms, errors)
        if stop.received:
            _say(f"Stopped by {stop.received[0].name}. To go on where it stopped:\n  {comparison.command}")
            return 128 + stop.received[0]
        write_tables(results, sys.stdout)
        _report(results, records, comparison.root)
    return FAILED if errors else 0


def plan(options: CompareOptions, words: Sequence[str]) -> Comparison:
    """All that follows from the options and the machine.

    Raises:
        ConfigError: options that contradict each other.
    """
    given = options.given
    if options.side_by_side > 1:
        given = {"pin": "none"} | given  # they would all be pinned to the same cores
    if options.devices and "device" in given:
        raise ConfigError(f"--devices contradicts --device {given['device']}: the runs take the devices in turn")
    arms = read_arms(options.arms, given)
    notes = [
        f"{arm.name}: scores may be {arm.options.max_staleness} steps old, two push periods, as --max-staleness is "
        "not given."
        for arm in arms
        if arm.options.max_staleness == 2 * arm.options.push_every and "max_staleness" not in {*given, *arm.own}
    ]
    first = arms[0].options
    method = next((arm.options.method for arm in arms if arm.options.mode != "uniform"), "uniform")
    root = (options.out or default_folder(first.data, method)).absolute()
    if options.equal_cores and any(arm.options.mode == "stale" for arm in arms):
        device = options.devices[0] if options.devices else None
        num_gpus = count_gpus() if (device or first.device) == "auto" else 0
        arms, added = with_equal_cores(arms, given, num_gpus=num_gpus, cpu_count=os.cpu_count() or 1, device=device)
        notes += added
    if options.shares_device:
        notes.append("Runs shared a device: no seconds are reported.")
    budget = budget_of(options, given.get("steps", type(first).model_fields["steps"].default))
    check_budget(budget, arms)
    if budget.kind != "steps" and "steps" in given:
        notes.append(f"The budget decides how many steps an arm gets: steps = {given['steps']} does not count.")
    command = shlex.join(["marginstream", "compare", *words])
    if options.out is None:
        command += f" --out {shlex.quote(short(root))}"
    return Comparison(options, root, command, tuple(arms), budget, tuple(notes))


def describe(comparison: Comparison) -> str:
    """What `--dry-run` prints: every run in order, then the options of each arm."""
    trials = comparison.trials(comparison.arms)
    lines = [comparison.title, f"folder {short(comparison.root)}", *comparison.notes]
    if comparison.budget.kind != "steps":
        lines.append(
            f"{comparison.budget.amount:g} {comparison.budget.kind} a run: a pilot of "
            f"{comparison.options.pilot_steps} steps finds the steps of each arm"
        )
    lines += [f"{number:3} {trial.name}: {short(trial.folder)}" for number, trial in enumerate(trials, start=1)]
    parts = ["\n".join(f"# {line}" for line in lines)]
    for arm in comparison.arms:
        parts.append(describe_options(arm.options, f"arm {arm.name}, without seed and folder"))
    return "\n\n".join(parts)


def _afford(comparison: Comparison, stop: StopSignals) -> tuple[list[Arm], dict[Path, str]]:
    """The arms with the steps that the budget gives them; the trials of those whose pilot failed, with the error."""
    if comparison.budget.kind == "steps":
        return list(comparison.arms), {}
    options = comparison.options
    pilots = [pilot_of(arm, comparison.root, options.pilot_steps) for arm in comparison.arms]
    errors = _runner(comparison, stop, lambda runner: runner.run(f"pilots of {comparison.title}", pilots))
    arms: list[Arm] = []
    failed: dict[Path, str] = {}
    for arm, pilot in zip(comparison.arms, pilots, strict=True):
        record = record_of(pilot)
        if record is not None:
            steps = affordable_steps(comparison.budget, record)
            arms.append(replace(arm, options=arm.options.model_copy(update={"steps": steps})))
            continue
        arms.append(arm)
        if pilot.folder in errors:
            failed |= {trial.folder: f"its pilot: {errors[pilot.folder]}" for trial in comparison.trials([arm])}
    return arms, failed


def _run(comparison: Comparison, arms: Sequence[Arm], stop: StopSignals, errors: Mapping[Path, str]) -> dict[Path, str]:
    """Runs all trials but those that have failed already. Errors by folder."""
    trials = [trial for trial in comparison.trials(arms) if trial.folder not in errors]

    def keep(failed: Mapping[Path, str]) -> None:
        sum_up(comparison, arms, {**errors, **failed})  # for whoever looks in meanwhile

    return _runner(comparison, stop, lambda runner: runner.run(comparison.title, trials, tell=keep))


def _runner(comparison: Comparison, stop: StopSignals, body: Callable[[Runner], dict[Path, str]]) -> dict[Path, str]:
    options = comparison.options
    with make_board_display(sys.stdout) as display:
        return body(Runner(stop, display, side_by_side=options.side_by_side, devices=options.devices))


def sum_up(
    comparison: Comparison, arms: Sequence[Arm], errors: Mapping[Path, str]
) -> tuple[Results, dict[str, list[RunRecord]]]:
    """Writes results.json from what lies in the folder. Returns it, and the finished runs by arm."""
    groups: list[tuple[str, list[RunRecord | FailedRun]]] = []
    for arm in arms:
        trials = comparison.trials([arm])
        groups.append((arm.name, [record_of(t) or FailedRun(t.folder, t.seed, errors.get(t.folder)) for t in trials]))
    options = comparison.options
    results = results_of(
        groups,
        title=comparison.title,
        command=comparison.command,
        root=comparison.root,
        options={arm.name: arm.options for arm in arms},
        targets=options.targets,
        budget=comparison.budget,
        side_by_side=options.shares_device,
        timed=not options.shares_device,
        notes=comparison.notes,
    )
    results = results.model_copy(update={"verdict": verdict_of(results)})
    write_results(comparison.root / RESULTS, results)
    records = {name: [run for run in runs if isinstance(run, RunRecord)] for name, runs in groups}
    return results, records


def _report(results: Results, records: dict[str, list[RunRecord]], root: Path) -> None:
    # Imported here: drawing libraries take seconds.
    from common.experiment.report import write_report

    _say(f"Report: {short(write_report(results, root, records))}")


def _say(text: str) -> None:
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        go_silent()
