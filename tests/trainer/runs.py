"""Whole runs of a small model in this process."""

import json
from pathlib import Path
from typing import Any

from common.config import TrainerOptions
from trainer import loop

OPTIONS: dict[str, Any] = {
    "data": "synthetic", "synthetic": {"num_samples": 200}, "model": "small", "mode": "fresh", "steps": 40,
    "batch_size": 8, "candidates": 24, "device": "cpu", "threads": 1, "checkpoint": {"every": 5, "keep": 9},
    "log": {"log_every": 1, "eval_every": 10, "tensorboard": False, "trace": True, "gallery": False},
}  # fmt: skip


def train(folder: Path, *, resume: bool = False, **more: Any) -> int:
    return loop.main(TrainerOptions.model_validate({**OPTIONS, "out": folder, "resume": resume, **more}))


def summary(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return read
