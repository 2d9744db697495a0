"""What a run leaves at its end: each file whole or absent, and one that the disk does not take costs no other."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.errors import NotWritten
from common.models import unwrap
from common.run import Run
from common.run_folder import MODEL, SUMMARY, UNWRITTEN
from common.whole_files import replacing, said_by_system
from trainer.ranks.follower import Follower

log = logging.getLogger(__name__)


class LastFiles:
    """Writes them, and in the end says which are missing.

    Attributes:
        unwritten: what the system said, by name of the file.
    """

    def __init__(self, run: Run | Follower) -> None:
        self._run = run
        self.unwritten: dict[str, str] = {}

    def write(self, name: str, write: Callable[[Path], None]) -> None:
        """Have `write` make a file of the run folder; what the disk refuses is logged and noted, other errors rise."""
        try:
            write(self._run.folder / name)
        except Exception as error:  # torch wraps what the disk says into errors of its own
            said = said_by_system(error)
            if said is None:
                raise
            self.unwritten[name] = said
            log.error("ALARM: %s was not written: %s", name, said)

    def write_model(self, model: nn.Module) -> None:
        """model.pt, a state dict."""

        def save(path: Path) -> None:
            with replacing(path) as file:
                torch.save(unwrap(model).state_dict(), file)

        self.write(MODEL, save)

    def write_summary(self, figures: dict[str, Any], *, last_saved_step: int) -> None:
        """summary.json, the last one: it says what is missing, so that the run counts as one to go on with.

        Args:
            last_saved_step: of the checkpoint to go on from; -1 if there is none.

        Raises:
            NotWritten: this or an earlier file is missing.
        """
        if self.unwritten:
            figures = {**figures, UNWRITTEN: dict(self.unwritten)}
        self.write(SUMMARY, lambda _: self._run.write_summary(figures))
        if not self.unwritten:
            return
        remedy = "free space there, then go on with --resume"
        if last_saved_step < 0:
            remedy = f"{remedy}, which begins anew, as no checkpoint was written"
        else:
            remedy = f"{remedy}, from the checkpoint of step {last_saved_step}"
        raise NotWritten(
            f"--out: training ended after step {self._run.step}, but {' and '.join(self.unwritten)} could not be "
            f"written to {self._run.folder}: {'; '.join(dict.fromkeys(self.unwritten.values()))}; {remedy}"
        )
