"""Progress of runs as a test would have it."""

import json
from collections.abc import Callable
from pathlib import Path

from common.config import RunOptions
from common.experiment.progress import Progress

FIGURES = {
    "loss/selected": 0.4312,
    "loss/uniform": 0.1024,
    "staleness/mean": 3.71,
    "staleness/max": 12,
    "selection/candidates_per_selected": 4.26,
    "selection/selected_fraction": 0.981,
    "time/waited_fraction": 0.012,
    "scorers": 2,
}


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(tmp_path: Path, clock: Callable[[], float] = Clock(), **options: object) -> Progress:  # noqa: B008 - it stands
    return Progress(RunOptions.model_validate({"steps": 2000, **options}), tmp_path, clock)


def metrics(step: int, wall_s: float, **figures: object) -> str:
    return json.dumps({"step": step, "wall_s": wall_s, **figures})


def half_way(tmp_path: Path, **options: object) -> Progress:
    progress = run(tmp_path, **options)
    progress.add(metrics(900, 10.0, **FIGURES))
    progress.add(metrics(1000, 10.5, **FIGURES))
    progress.add(metrics(1000, 10.9, **{"accuracy/held_out": 0.96944}))
    return progress
