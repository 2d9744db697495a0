"""Every batch of a run on record: for exact comparisons of two runs, and for looking at what was selected."""

import json
from pathlib import Path

from common.line_writer import LineWriter
from trainer.batch import Batch
from trainer.step import StepResult


class Trace:
    """Appends one JSON line per step: step, origin, ids and float32 losses (as float64, so exactly), in batch order.

    A line is with the system when `write` returns; one for which the disk has no room is left out.
    """

    def __init__(self, path: Path) -> None:
        self._lines = LineWriter(path)

    def write(self, batch: Batch, result: StepResult) -> None:
        """Waits for the device."""
        line = {
            "step": batch.step,
            "origin": batch.origin,
            "ids": batch.ids.tolist(),
            "staleness": batch.staleness.tolist(),
            "losses": result.losses.float().tolist(),
        }
        self._lines.write([json.dumps(line)])
