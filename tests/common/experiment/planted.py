"""Run folders with figures that a test chooses, and records of them."""

import json
from pathlib import Path
from typing import Any

from common.config import RunOptions, to_toml
from common.experiment.records import RunRecord, load_record

FORWARD, BACKWARD = 10.0, 20.0  # operations of one sample


def summary_of(options: RunOptions, **figures: Any) -> dict[str, Any]:
    """A summary of plain steps, and of one scored candidate for each trained sample where anything is scored."""
    trained = options.steps * options.batch_size
    scored = 0 if options.mode == "uniform" else trained
    summary: dict[str, Any] = {
        "accuracy": 0.9,
        "loss": 0.3,
        "steps": options.steps,
        "samples_trained": trained,
        "samples_scored": scored,
        "candidates_per_selected": 0.0 if options.mode == "uniform" else 4.0,
        "staleness_mean": 0.0,
        "staleness_max": 0,
        "steps_by_origin": {"plain": options.steps},
        "waited_fraction": 0.0,
        "wall_s": 5.0,
        "train_s": 4.0,
        "flops": {
            "forward_per_sample": FORWARD,
            "backward_per_sample": BACKWARD,
            "training": trained * (FORWARD + BACKWARD),
            "scoring": {options.precision: scored * FORWARD},
            "audit": 0.0,
        },
        "words": "Trained.",
    }
    return summary | figures


def plant(
    folder: Path, options: RunOptions, *, metrics: list[dict[str, Any]] | None = None, **figures: Any
) -> RunRecord:
    """Writes a run folder; `figures` replace those of the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.toml").write_text(to_toml(options.model_copy(update={"out": folder}).dump()))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics or []))
    (folder / "environment.json").write_text(json.dumps({"cpu_count": 2, "gpus": [], "host": "planted"}))
    (folder / "summary.json").write_text(json.dumps(summary_of(options, **figures)))
    return load_record(folder)


def evaluation(step: int, accuracy: float, **more: Any) -> dict[str, Any]:
    """A row of metrics.jsonl after an evaluation: 0.1 s, 8 samples and 240 operations a step; nothing is scored."""
    used = {"train_s": step / 10, "samples_trained": 8 * step, "samples_scored": 0}
    flops = {"flops_training": 240.0 * step, "flops_scoring": 0.0}
    return {"step": step, "wall_s": step / 8, "accuracy/held_out": accuracy, **used, **flops, **more}
