"""Which runs there are, which of them are one arm, and what tells the arms apart."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.experiment.compare.verdict import verdict_of
from common.experiment.records import PILOTS, FailedRun, RunRecord, load_record
from common.experiment.results import RESULTS, Results, read_results
from common.experiment.summarise import flatten, results_of
from common.run_folder import OPTIONS, SUMMARY, is_complete

IN_MODE_NAME = "push_every"  # stale:64 is stale:push_every=64

MOST_NAMES = 5  # in a title


@dataclass(frozen=True)
class Found:
    """Runs below the folders that were named. unfinished: run folders without a summary, left out."""

    records: list[RunRecord]
    unfinished: list[Path]


def find_runs(folders: Iterable[Path]) -> Found:
    """All run folders among and below `folders`, each once, by path below each.

    Raises:
        ConfigError: a folder does not exist, holds no finished run, or holds a damaged one.
    """
    records: dict[Path, RunRecord] = {}
    unfinished: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir() or (folder / OPTIONS).is_file():
            records[folder.absolute()] = load_record(folder)
            continue
        below = sorted(path.parent for path in folder.rglob(OPTIONS))
        below = [path for path in below if PILOTS not in path.relative_to(folder).parts]
        for path in below:
            record = load_record(path) if (path / SUMMARY).is_file() else None
            if record is None or not is_complete(record.summary):
                unfinished[path] = None
            else:
                records[path.absolute()] = record
        if not any(path.absolute() in records for path in below):
            raise ConfigError(
                f"{folder} holds no run that ended in order (no {SUMMARY} in it or below); name a run folder, such as "
                "runs/digits-mms-stale-TIME"
            )
    return Found(list(records.values()), list(unfinished))


def kept_comparison(
    folder: Path, out: Path, targets: Sequence[float] = ()
) -> tuple[Results, dict[str, list[RunRecord]]] | None:
    """What `compare` wrote into its folder, for a report in `out`; None if `folder` holds no comparison.

    Args:
        targets: other ones than the comparison's own.

    Raises:
        ConfigError: results.json or one of its runs is damaged.
    """
    if (folder / OPTIONS).is_file() or not (folder / RESULTS).is_file():
        return None
    results = read_results(folder)
    if results.budget is None:  # of an earlier report: there may be more runs now
        return None
    records = {
        arm.name: [load_record(folder / run.folder) for run in arm.runs if run.status == "done"] for arm in results.arms
    }
    if targets:
        results = _with_targets(results, records, folder.absolute(), targets)
    return results if folder.absolute() == out.absolute() else _elsewhere(results, folder), records


def _with_targets(
    results: Results, records: Mapping[str, list[RunRecord]], folder: Path, targets: Sequence[float]
) -> Results:
    """The same comparison with what it took to reach other accuracies."""
    groups: list[tuple[str, list[RunRecord | FailedRun]]] = []
    for arm in results.arms:
        lost = [FailedRun(folder / run.folder, run.seed, run.error) for run in arm.runs if run.status != "done"]
        groups.append((arm.name, [*records[arm.name], *lost]))
    again = results_of(
        groups,
        title=results.title,
        command=results.command,
        root=folder,
        targets=targets,
        budget=results.budget,
        side_by_side=results.side_by_side,
        timed=not results.side_by_side,
        notes=results.notes,
    )
    return again.model_copy(update={"verdict": verdict_of(again)})


def grouped(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Arms by name, plain ones first, then fresh, then stale: runs whose options differ in seed and folder at most.

    Raises:
        ConfigError: the runs are of different data; nothing about them compares.
    """
    records = list(records)
    data = dict.fromkeys(record.options.data for record in records)
    if len(data) > 1:
        raise ConfigError(f"the runs are of different data ({', '.join(data)}): make a report of each data by itself")
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(json.dumps(flatten(record.options), sort_keys=True), []).append(record)
    arms = sorted(groups.values(), key=lambda runs: _rank(runs[0]))
    names = names_of([flatten(runs[0].options) for runs in arms])
    return {
        name: sorted(runs, key=lambda record: (record.options.seed, record.folder))
        for name, runs in zip(names, arms, strict=True)
    }


def names_of(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each arm's options: its mode, and the options in which it differs from others of that mode."""
    keys = {
        mode: _differing([arm for arm in arms if arm["mode"] == mode]) for mode in {str(arm["mode"]) for arm in arms}
    }
    names = []
    for arm in arms:
        differing = keys[str(arm["mode"])]
        first = [_shown(arm.get(IN_MODE_NAME))] if IN_MODE_NAME in differing else []
        rest = [f"{key}={_shown(arm.get(key))}" for key in sorted(differing - {IN_MODE_NAME})]
        names.append(":".join(part for part in (str(arm["mode"]), ",".join(first + rest)) if part))
    return names


def title_of(arms: Mapping[str, Sequence[RunRecord]]) -> str:
    """`mms on digits: uniform, fresh, stale`; many are counted, not listed."""
    options = [runs[0].options for runs in arms.values()]
    methods = list(dict.fromkeys(each.method for each in options if each.mode != "uniform")) or ["plain training"]
    names = f": {_few(list(arms), 'arms')}" if len(arms) > 1 else ""
    return f"{_few(methods, 'methods')} on {options[0].data}{names}"


def notes_of(arms: Mapping[str, Sequence[RunRecord]], unfinished: Sequence[Path]) -> list[str]:
    """What to know when reading the figures of runs that were not made together."""
    records = [record for runs in arms.values() for record in runs]
    notes = [f"{folder} has not run to its end and is left out." for folder in unfinished]
    notes += [
        f"{record.folder} was stopped at step {record.summary.get('steps')} of {record.options.steps}."
        for record in records
        if "stopped_by" in record.summary
    ]
    hosts = {str(record.environment.get("host")) for record in records}
    if len(hosts) > 1:
        notes.append(f"The runs are of {len(hosts)} machines: their seconds compare the machines too.")
    elif len(arms) > 1:
        notes.append("The runs were started one by one: their seconds compare only if nothing else ran beside them.")
    seeds = {frozenset(record.options.seed for record in runs) for runs in arms.values()}
    if len(seeds) > 1:
        notes.append("The arms have different seeds: part of a difference may be that of the seeds.")
    return notes


def _few(names: Sequence[str], what: str) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} {what}"


def _elsewhere(results: Results, folder: Path) -> Results:
    """The results with run folders that are found from anywhere."""
    arms = [
        arm.model_copy(
            update={
                "runs": [run.model_copy(update={"folder": str((folder / run.folder).absolute())}) for run in arm.runs]
            }
        )
        for arm in results.arms
    ]
    return results.model_copy(update={"arms": arms})


def _rank(record: RunRecord) -> tuple[int, str, int, str]:
    options = record.options
    return (("uniform", "fresh", "stale").index(options.mode), options.method, options.push_every, str(record.folder))


def _differing(arms: Sequence[Mapping[str, Any]]) -> set[str]:
    keys = {key for arm in arms for key in arm}
    return {key for key in keys if len({json.dumps(arm.get(key)) for arm in arms}) > 1}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
