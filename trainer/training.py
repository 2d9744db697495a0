"""A run's training as a whole: what learns, its batches and its records, saved together and put back together."""

import contextlib
import logging
from typing import Any

from torch import nn

from common.data.source import Source
from common.errors import ConfigError
from common.run import Run
from common.run_folder import drop_lines_after
from trainer.checkpoint import Checkpoints
from trainer.learner import Learner
from trainer.record import TRACE, Record
from trainer.stopping import Stopping
from trainer.stream import SelectedBatches

log = logging.getLogger(__name__)


class Training:
    """Of one run. Enter it inside the run; `resume` comes before that.

    Args:
        batches: entered with it.
        model: on its device; wrapped or not.
        stopping: who was asked to end the run, if anybody may.
    """

    def __init__(
        self, run: Run, batches: SelectedBatches, source: Source, model: nn.Module, stopping: Stopping | None = None
    ) -> None:
        self.run = run
        self.batches = batches
        self.learner = Learner(run.options, model)
        self.record = Record(run, batches, source, self.learner, stopping.is_late if stopping else lambda: False)
        self.checkpoints = Checkpoints(run.folder, run.options.checkpoint)
        batches.watched.checkpoints = self.checkpoints
        self._stopping = stopping
        self._resumed_at = 0
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "Training":
        with contextlib.ExitStack() as opened:
            opened.callback(self.checkpoints.close)
            opened.enter_context(self.batches)
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, or from the beginning if there is none.

        Raises:
            ConfigError: the checkpoints are damaged, or of another model.
        """
        state = self.checkpoints.load()
        if state is None:
            self._rewind(0)
            self.record.rewind()
            log.warning("there is no checkpoint to go on from: the run begins anew")
            return
        step = state["step"]
        try:
            self.learner.load_state_dict(state["learner"])
            self.batches.load_state_dict(state["batches"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # what torch and all parts raise
            raise ConfigError(
                f"--resume: the checkpoint of step {step} is of another model, or of another version of this program: "
                f"{' '.join(str(error).split()).rstrip(' .')}; start a new run with another --out"
            ) from error
        self._rewind(step)  # once it is certain that the run goes on
        self.record.load_state_dict(state["record"])
        self.checkpoints.last_saved_step = self._resumed_at = step
        log.info("going on after step %d, which generation %d had come to", step, state["generation"])

    def _rewind(self, step: int) -> None:
        """Take out what an earlier life recorded after `step`."""
        self.run.resume(step)
        drop_lines_after(self.run.folder / TRACE, step - 1)  # a line counts the steps before its batch

    def save(self) -> None:
        """Write a checkpoint of this moment, between two steps. Whatever goes wrong, the run goes on."""
        step = self.run.step
        with self.run.timing("checkpoint"):
            try:
                self.checkpoints.save(
                    step,
                    {
                        "step": step,
                        "generation": self.run.generation,
                        "learner": self.learner.state_dict(),
                        "record": self.record.state_dict(),
                    },
                    own={"batches": self.batches.state_dict()},
                )
            except Exception as error:  # a full disk, a batch that is not read: nothing that training depends on
                self.checkpoints.fail(step, error)

    def finish(self) -> dict[str, Any]:
        """Of a run that was stopped before its last step, save that step; evaluate. Returns the summary."""
        is_over = self.run.step >= self.run.options.steps
        stopped_by = None if self._stopping is None or is_over else self._stopping.received
        self.checkpoints.close()
        if stopped_by is not None and self.checkpoints.last_saved_step != self.run.step:
            self.save()
            self.checkpoints.close()  # before an evaluation that may be cut short by a second signal
        self.record.evaluate()
        summary = {
            **self.record.summary(),
            "alarms": self.batches.watched.alarms,
            "checkpoints": {"saved": self.checkpoints.num_saved, "failed": self.checkpoints.num_failed},
            "resumed_at_step": self._resumed_at,
            "generation": self.run.generation,
        }
        if stopped_by is not None:
            summary["stopped_by"] = stopped_by.name
        return summary
