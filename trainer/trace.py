"""Every batch of a run on record: for exact comparisons of two runs, and for looking at what was selected."""

import json
from pathlib import Path
from typing import IO

from trainer.batch import Batch
from trainer.step import StepResult


class Trace:
    """Appends one JSON line per step: step, origin, ids and float32 losses (as float64, so exactly), in batch order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> "Trace":
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def flush(self) -> None:
        """What was written survives this process."""
        assert self._file is not None, "Trace.flush outside of the with block"
        self._file.flush()

    def write(self, batch: Batch, result: StepResult) -> None:
        """Waits for the device."""
        assert self._file is not None, "Trace.write outside of the with block"
        line = {
            "step": batch.step,
            "origin": batch.origin,
            "ids": batch.ids.tolist(),
            "staleness": batch.staleness.tolist(),
            "losses": result.losses.float().tolist(),
        }
        self._file.write(json.dumps(line) + "\n")
