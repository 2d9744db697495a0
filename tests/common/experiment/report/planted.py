"""Runs whose curves, pictures and counts are made up: what a report shows of them is known beforehand."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.config import RunOptions
from common.experiment.records import RunRecord
from common.experiment.results import ArmResult, Budget, Ratio, Reached, Results, RunResult, Spread

STEPS, EVERY, BATCH = 1000, 50, 32
FORWARD, BACKWARD = 1e6, 2e6
CLASSES = ("zero", "one", "two <b>&", "three")  # names come from people: they may hold anything

# name -> (mode, push_every, how fast the error falls, seconds a step)
ARMS: dict[str, tuple[str, int, float, float]] = {
    "uniform": ("uniform", 8, 5.0, 0.004),
    "fresh": ("fresh", 8, 6.5, 0.011),
    "stale:8": ("stale", 8, 6.3, 0.006),
    "stale:64": ("stale", 64, 5.5, 0.006),
}


def record(folder: Path, name: str, seed: int, steps: int = STEPS) -> RunRecord:
    """One run of an arm, with its files in `folder`."""
    mode, push_every, speed, step_s = ARMS[name]
    options = RunOptions(mode=mode, method="uniform" if mode == "uniform" else "mms", push_every=push_every,
                         max_staleness=128, steps=steps, seed=seed)  # fmt: skip
    folder.mkdir(parents=True)
    draw = np.random.default_rng((seed, *name.encode()))
    metrics = [row for step in range(EVERY, steps + 1, EVERY) for row in _rows(mode, step, speed, step_s, draw)]
    agreement = _agreement(push_every, draw) if mode == "stale" else []
    counts = {str(age): 64 * (push_every + 6 - age) for age in range(2, push_every + 6)} if mode == "stale" else {}
    write_gallery(folder, draw)
    return RunRecord(folder, options, {"staleness_counts": counts}, metrics, agreement, {"host": "planted"})


def _rows(mode: str, step: int, speed: float, step_s: float, draw: np.random.Generator) -> list[dict[str, Any]]:
    scored = 0 if mode == "uniform" else (10 if mode == "fresh" else 3) * BATCH * step
    common = {
        "step": step,
        "wall_s": 1.5 + step_s * step * 1.1,
        "train_s": step_s * step,
        "samples_trained": BATCH * step,
        "samples_scored": scored,
        "flops_training": (FORWARD + BACKWARD) * BATCH * step,
        "flops_scoring": FORWARD * scored,
    }
    error = 0.015 + 0.8 * np.exp(-speed * step / STEPS) * draw.uniform(0.9, 1.1)
    rows = [common | {"accuracy/held_out": 1 - error, "loss/held_out": 4 * error}]
    if mode == "uniform":
        return [*rows, common | {"accuracy/plain": 1 - error, "time/waited_fraction": 0.001}]
    selecting = {"accuracy/selected": 1 - min(3 * error, 0.9), "accuracy/uniform": 1 - error,
                 "selection/mean_margin": 0.02 + 0.3 * step / STEPS * draw.uniform(0.9, 1.1),
                 "time/waited_fraction": 0.02 + 5 / step}  # fmt: skip
    if mode == "stale":
        selecting["selection/fallbacks"] = int(step * 0.03)
    return [*rows, common | selecting]


def _agreement(push_every: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    ages = draw.integers(0, push_every + 5, 40).tolist()
    rows = [
        {"step": 10 * number, "kind": "staleness", "precision": "float32", "staleness": age,
         "overlap": 1 - 0.6 * age / (age + 40), "rank_correlation": 1 - 0.4 * age / (age + 40),
         "num_candidates": 64, "num_selected": 16}
        for number, age in enumerate(ages)
    ]  # fmt: skip
    coarse = {"kind": "precision", "precision": "bf16", "staleness": 0, "num_candidates": 64, "num_selected": 16}
    return [*rows, *({"step": step, "overlap": 0.97, "rank_correlation": 0.999} | coarse for step in (100, 200))]


def write_gallery(folder: Path, draw: np.random.Generator) -> None:
    """Twelve pictures a group; class 1 is selected twice as often as its share, class 0 half as often."""
    arrays: dict[str, np.ndarray] = {
        "class_sizes": np.full(4, 100),
        "class_seen": np.full(4, 1000),
        "class_selected": np.array([50, 200, 70, 80]),
        "class_names": np.array(CLASSES),
    }
    for group, count in (("most", 30), ("least", 0)):
        ids = draw.permutation(400)[:12]
        blob = np.exp(-(np.linspace(-2, 2, 8)[:, None] ** 2) - np.linspace(-2, 2, 8)[None] ** 2)
        arrays |= {
            f"{group}_ids": ids,
            f"{group}_inputs": (blob[None, None] * draw.uniform(60, 255, (12, 1, 8, 8))).astype(np.uint8),
            f"{group}_targets": ids % 4,
            f"{group}_losses": draw.uniform(0, 2, 12).astype(np.float32),
            f"{group}_seen": np.full(12, 40),
            f"{group}_selected": np.full(12, count),
        }
    np.savez(folder / "gallery.npz", **arrays)


def write_boundary(folder: Path) -> None:
    """Three classes in the plane, sectors around the origin; the points nearest a boundary are selected."""
    draw = np.random.default_rng(0)
    x, y = np.linspace(-2, 2, 60), np.linspace(-2, 2, 50)
    points = draw.normal(0, 0.8, (300, 2))

    def sector(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((np.arctan2(b, a) + np.pi) / (2 * np.pi / 3 + 1e-9)).astype(np.int64)

    def nearness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        turn = np.mod((np.arctan2(b, a) + np.pi) / (2 * np.pi / 3), 1)
        return np.minimum(turn, 1 - turn) * np.hypot(a, b)

    grid = np.meshgrid(x, y)
    near = nearness(points[:, 0], points[:, 1])
    np.savez(
        folder / "boundary.npz", x=x, y=y, predicted=sector(*grid), margin=nearness(*grid).astype(np.float32),
        points=points, labels=sector(points[:, 0], points[:, 1]), selected=near < np.sort(near)[24], step=np.int64(900),
    )  # fmt: skip


def study(folder: Path, seeds: int = 3) -> tuple[Results, dict[str, list[RunRecord]]]:
    """Four arms with all files, written below `folder`."""
    records = {
        name: [record(folder / f"{name.replace(':', '-')}-seed{seed}", name, seed) for seed in range(seeds)]
        for name in ARMS
    }
    write_boundary(records["stale:8"][0].folder)
    arms = [arm(name, runs) for name, runs in records.items()]
    results = Results(
        title="digits: mms, fresh and stale",
        command="marginstream compare --data digits --method mms --arms uniform fresh stale:8 stale:64 --seeds 0 1 2",
        created="2026-01-02T03:04:05+0000",
        machine={"host": "planted", "cpu_count": 2, "versions": {"torch": "2.0"}},
        shared={"data": "digits", "batch_size": BATCH},
        targets=(0.95, 0.995),
        budget=Budget(kind="steps", amount=STEPS),
        arms=arms,
        notes=["stale:64 fell back in 31.0 % of its steps: it is not a clean comparison."],
        verdict=["stale:8 ends 0.4 points above plain training and takes 1.50 times its time: it gains nothing here.",
                 "fresh ends within the spread of the seeds."],
    )  # fmt: skip
    return results, records


def arm(name: str, runs: list[RunRecord]) -> ArmResult:
    mode = ARMS[name][0]
    last = [run.metrics[-1] for run in runs]
    accuracy = [run.metrics[-2]["accuracy/held_out"] for run in runs]
    tags = ("samples_trained", "samples_scored", "flops_training", "flops_scoring", "train_s", "wall_s")
    figures = {tag: Spread.of([row[tag] for row in last]) for tag in tags}
    fallback = 0.31 if name == "stale:64" else 0.03 if mode == "stale" else 0.0
    plain = mode == "uniform"
    return ArmResult(
        name=name, mode=mode, method=runs[0].options.method, options={"mode": mode}, cores=2 if mode == "stale" else 1,
        device="cpu", is_clean=fallback <= 0.05, accuracy=Spread.of(accuracy), steps=Spread.of([STEPS] * len(runs)),
        fallback_fraction=Spread.of([fallback] * len(runs)), waited_fraction=Spread.of([0.02] * len(runs)),
        staleness_mean=Spread.of([8.9] * len(runs)) if mode == "stale" else None,
        staleness_max=Spread.of([27] * len(runs)) if mode == "stale" else None,
        ratio_to_plain=None if plain else Ratio(plain="uniform", wall=1.5, train=1.5, flops=2.0, accuracy_points=0.4),
        reached=[Reached(target=0.95, num_runs=3, num_reached=3, step=Spread.of([600, 650, 700]),
                         train_s=Spread.of([3.0, 3.1, 3.2])),
                 Reached(target=0.995, num_runs=3, num_reached=0)],
        runs=[RunResult(seed=run.options.seed, folder=run.folder.name, status="done", accuracy=value, words="Trained.")
              for run, value in zip(runs, accuracy, strict=True)],
        **figures,
    )  # fmt: skip


def as_run_folder(kept: RunRecord) -> None:
    """Writes what `load_record` reads."""
    from common.run_folder import to_json, write_options

    write_options(kept.folder, kept.options)
    (kept.folder / "summary.json").write_text(to_json(kept.summary))
    lines = [json.dumps(row) + "\n" for row in kept.metrics]
    (kept.folder / "metrics.jsonl").write_text("".join(lines))
