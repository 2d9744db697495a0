"""Run folders to results: what each run counted, what the seeds of an arm share, what it is to plain training."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config import Options, RunOptions
from common.experiment.devices import lay_out
from common.experiment.plain import plain_for, ratio_of
from common.experiment.reaching import Point, first_reaching, reached_by
from common.experiment.records import FailedRun, RunRecord
from common.experiment.results import (
    CLEAN_FALLBACK_FRACTION,
    FIGURES,
    ArmResult,
    Budget,
    Results,
    RunResult,
    Spread,
)

OF_ONE_RUN = frozenset(
    {"seed", "out", "resume", "device", "scorer_device", "devices", "config", "dry_run"}
    | {"listen", "listen_on_all", "keys", "insecure", "metrics_port", "unhealthy_after_s"}
)
FULL_PRECISION = "float32"

Group = tuple[str, Sequence[RunRecord | FailedRun], RunOptions]


def results_of(
    groups: Iterable[tuple[str, Sequence[RunRecord | FailedRun]]],
    *,
    title: str,
    command: str,
    root: Path,
    options: Mapping[str, RunOptions] | None = None,
    targets: Sequence[float] = (),
    budget: Budget | None = None,
    side_by_side: bool = False,
    timed: bool = True,
    notes: Sequence[str] = (),
) -> Results:
    """The account of all arms.

    Args:
        groups: name of each arm and its runs, by seed.
        root: folder that run folders are named relative to.
        options: of arms by name, needed for those without a finished run, which are left out without.
        timed: whether seconds mean something: no two runs shared a device.
    """
    wanted = dict(options or {})
    found: list[Group] = []
    for name, runs in groups:
        records = [run for run in runs if isinstance(run, RunRecord)]
        if records or name in wanted:
            found.append((name, runs, records[0].options if records else wanted[name]))
    flat = {name: flatten(chosen) for name, _, chosen in found}
    shared = {key: value for key, value in next(iter(flat.values()), {}).items() if _is_shared(key, value, flat)}
    points = {
        name: [
            [first_reaching(run.metrics, target) for target in targets] for run in runs if isinstance(run, RunRecord)
        ]
        for name, runs, _ in found
    }
    arms = [
        _arm(name, runs, chosen, {key: value for key, value in flat[name].items() if key not in shared}, root, timed)
        for name, runs, chosen in found
    ]
    return Results(
        title=title,
        command=command,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        machine=next((run.environment for _, runs, _ in found for run in runs if isinstance(run, RunRecord)), None),
        shared=shared,
        targets=tuple(targets),
        budget=budget,
        side_by_side=side_by_side,
        arms=[_compared(arm, arms, points, targets, timed) for arm in arms],
        notes=list(notes),
    )


def flatten(options: Options) -> dict[str, Any]:
    """Options by dotted key, without those of one run (seed, folder, device, endpoint). None stands for not given."""

    def walk(table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in table.items():
            flat |= walk(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
        return flat

    return {key: value for key, value in walk(options.dump(), "").items() if key not in OF_ONE_RUN}


def run_result(run: RunRecord | FailedRun, root: Path, *, timed: bool = True) -> RunResult:
    """The figures of one run."""
    folder = str(run.folder.relative_to(root)) if run.folder.is_relative_to(root) else str(run.folder)
    if isinstance(run, FailedRun):
        status = "failed" if run.error is not None else "missing"
        return RunResult.model_validate({"seed": run.seed, "folder": folder, "status": status, "error": run.error})
    summary = run.summary
    flops = summary.get("flops") or {}
    scoring = flops.get("scoring") or {}
    scores, is_stale = run.options.mode != "uniform", run.options.mode == "stale"
    values: dict[str, Any] = {
        "accuracy": summary.get("accuracy"),
        "loss": summary.get("loss"),
        "steps": summary.get("steps"),
        "samples_trained": summary.get("samples_trained"),
        "samples_scored": summary.get("samples_scored") if scores else 0,
        "flops_training": flops.get("training"),
        "flops_scoring": total(scoring.values()) if flops else None,
        "flops_scoring_low_precision": _without(scoring, FULL_PRECISION) if flops else None,
        "flops_audit": flops.get("audit"),
        "wall_s": summary.get("wall_s") if timed else None,
        "train_s": summary.get("train_s") if timed else None,
        "waited_fraction": summary.get("waited_fraction"),
        "fallback_fraction": fallback_fraction(summary),
        "staleness_mean": summary.get("staleness_mean") if is_stale else None,
        "staleness_max": summary.get("staleness_max") if is_stale else None,
        "candidates_per_selected": summary.get("candidates_per_selected") if scores else None,
    }
    own = {"seed": run.options.seed, "folder": folder, "status": "done", "words": summary.get("words")}
    return RunResult.model_validate(values | own)


def fallback_fraction(summary: Mapping[str, Any]) -> float | None:
    """Fallbacks over the steps outside warm-up and annealing; 0 where nothing was to be selected, None if unknown."""
    origins = summary.get("steps_by_origin")
    if origins is None:
        return None
    selecting = _without(origins, "plain")
    return float((origins.get("fallback", 0) + origins.get("reused", 0)) / selecting) if selecting else 0.0


def cores_of(options: RunOptions, *, num_gpus: int, cpu_count: int) -> tuple[int, str]:
    """Cores or GPUs that compute at once, and the kind of device: `(2, "cpu")`.

    On the CPU each process computes with its threads, on a GPU the processes of one GPU count as one. More ranks than
    the first machine has GPUs are on several machines, with a GPU each.
    """
    layout = lay_out(options, max(num_gpus, options.trainers) if num_gpus else 0)
    devices = (*layout.trainers, *layout.scorers)
    kind = layout.trainer.partition(":")[0]
    if kind != "cpu":
        return len({device for device in devices if device != "cpu"}), kind
    on_cpu = sum(device == "cpu" for device in devices)
    threads = options.num_threads
    return cpu_count if threads is None else min(cpu_count, threads * on_cpu), kind


def _arm(
    name: str,
    runs: Sequence[RunRecord | FailedRun],
    options: RunOptions,
    own: dict[str, Any],
    root: Path,
    timed: bool,
) -> ArmResult:
    results = [run_result(run, root, timed=timed) for run in runs]
    spreads: dict[str, Any] = {figure: Spread.of([getattr(run, figure) for run in results]) for figure in FIGURES}
    environment: dict[str, Any] = next((run.environment for run in runs if isinstance(run, RunRecord)), {})
    cores, device = cores_of(
        options, num_gpus=len(environment.get("gpus") or ()), cpu_count=environment.get("cpu_count") or 1 << 16
    )
    fallbacks: Spread | None = spreads["fallback_fraction"]
    return ArmResult(
        name=name,
        mode=options.mode,
        method=options.method,
        options=own,
        cores=cores,
        device=device,
        runs=results,
        is_clean=fallbacks is None or fallbacks.mean <= CLEAN_FALLBACK_FRACTION,
        **spreads,
    )


def _compared(
    arm: ArmResult,
    arms: Sequence[ArmResult],
    points: Mapping[str, Sequence[Sequence[Point | None]]],
    targets: Sequence[float],
    timed: bool,
) -> ArmResult:
    """The arm with what it is to plain training."""
    plain = plain_for(arm, arms)
    reached = [
        reached_by(
            target,
            [run[index] for run in points[arm.name]],
            None if plain is None else [run[index] for run in points[plain.name]],
            timed=timed,
        )
        for index, target in enumerate(targets)
    ]
    return arm.model_copy(
        update={"reached": reached, "ratio_to_plain": None if plain is None else ratio_of(arm, plain)}
    )


def total(values: Iterable[float | None]) -> float | None:
    """The sum; None if one of them is unknown."""
    known = list(values)
    return None if None in known else math.fsum(value for value in known if value is not None)


def _without(counts: Mapping[str, float | None], left_out: str) -> float | None:
    return total(value for name, value in counts.items() if name != left_out)


def _is_shared(key: str, value: Any, flat: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(key in other and other[key] == value for other in flat.values())
