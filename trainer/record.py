"""What a run records as it goes: metrics, log lines, evaluations, audits and, when asked, every batch."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from common.data.source import Source
from common.errors import TrainingDiverged
from common.run import Run
from common.run_folder import of_rank
from trainer.agreement import AgreementLog
from trainer.batch import Batch
from trainer.evaluate import Abandoned, Evaluation, evaluate
from trainer.learner import Learner
from trainer.ranks.follower import Follower
from trainer.recalibrate import recalibrated, recalibration_inputs
from trainer.step import BatchMeans, StepResult
from trainer.stream import SelectedBatches
from trainer.trace import Trace
from trainer.words import log_line

log = logging.getLogger(__name__)

TRACE = "trace.jsonl"


class Record:
    """Of one run. Ranks other than rank 0 record log lines and, when asked, batches.

    Args:
        is_late: whether a run that was asked to end should no longer wait for an evaluation.
    """

    def __init__(
        self,
        run: Run | Follower,
        batches: SelectedBatches,
        source: Source,
        learner: Learner,
        is_late: Callable[[], bool] = lambda: False,
    ) -> None:
        self._run = run
        self._options = run.options
        self._batches = batches
        self._source = source
        self._learner = learner
        self._is_late = is_late
        self._means = BatchMeans(learner.device)
        self._agreement = AgreementLog(run.folder / of_rank("agreement.jsonl", run.rank))
        self._trace = Trace(run.folder / of_rank(TRACE, run.rank)) if run.options.log.trace else None
        self._evaluation: Evaluation | None = None
        self._evaluated_at = -1  # step
        batches.tally.phases = run.timing.seconds  # what is timed there is part of the profile

    # -- as it goes ---------------------------------------------------------------------------------------------------

    def add(self, batch: Batch, result: StepResult) -> None:
        """A batch was trained and counted; write what is due after it.

        Raises:
            TrainingDiverged: see `check_finite`.
        """
        run, every = self._run, self._options.log
        run.step = self._batches.completed
        self._means.add(batch, result)
        if self._trace is not None:
            self._trace.write(batch, result)
        if run.due(every.eval_every):
            self.evaluate()
        if run.due(every.log_every) or run.step == 1:
            self._log()

    def evaluate(self) -> None:
        """Evaluate on held-out data, unless that was done after this step; rank 0 does it for all."""
        if self._evaluated_at == self._run.step or self._run.rank:
            return
        device = self._learner.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # what is still queued is training, and an evaluation waits in any case
        with self._run.timing("evaluate"):
            try:
                now = evaluate(self._evaluated_model(), self._source, device=device, is_late=self._is_late)
            except Abandoned:
                log.warning("the evaluation after step %d is left out: the run was asked to end", self._run.step)
                return
        self._evaluation, self._evaluated_at = now, self._run.step
        self._write({"accuracy/held_out": now.accuracy, "loss/held_out": now.loss})

    def _log(self) -> None:
        losses = self._means.take()
        check_finite(losses, self._run.step)
        figures = {**losses, "lr": self._learner.lr, **self._batches.curves()}
        self._write(figures)
        self._agreement.write(self._batches.tally.agreement)
        log.info("%s", log_line(self._run.step, self._options.steps, figures, self._evaluation))

    def _write(self, figures: Mapping[str, Any]) -> None:
        account = self._batches.tally.account().row()
        self._run.log({**figures, "train_s": round(self.train_s, 3), **account})

    def _evaluated_model(self) -> nn.Module:
        """What an evaluation looks at: the model, or a copy with BatchNorm statistics of uniform samples."""
        num, model = self._options.log.recalibrate, self._learner.model
        if num == 0:
            return model
        return recalibrated(model, recalibration_inputs(self._source, num, self._learner.device, self._options.seed))

    @property
    def train_s(self) -> float:
        """Seconds since the first step, without evaluations."""
        return self._batches.tally.elapsed_s - self._run.timing.seconds.get("evaluate", 0.0)

    # -- at the end ---------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Of the whole run, with the last evaluation that there was."""
        self._agreement.write(self._batches.tally.agreement)
        evaluation = self._evaluation or Evaluation(math.nan, math.nan, 0)
        names = ("mode", "method", "data", "model", "seed")
        return {
            "accuracy": evaluation.accuracy,
            "loss": evaluation.loss,
            "evaluated_at_step": max(self._evaluated_at, 0),
            **self._batches.summary(),
            "wall_s": self._run.timing.wall_s,
            "train_s": self.train_s,
            "checkpoint_stall_s": self._run.timing.seconds.get("checkpoint", 0.0),
            **{name: getattr(self._options, name) for name in names},
        }

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """After a step; what was written so far is with the system."""
        evaluation = None if self._evaluation is None else (asdict(self._evaluation), self._evaluated_at)
        timing = self._run.timing
        return {
            "means": self._means.state_dict(),
            "num_agreements": self._agreement.num_written,
            "evaluation": evaluation,
            "wall_s": timing.wall_s,
            "phases_s": dict(timing.seconds),
        }

    def rewind(self, num_agreements: int = 0) -> None:
        """Take audits behind the first ones out of the folder: they are written again, if they come."""
        self._agreement.rewind(num_agreements)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Before entering."""
        self._means.load_state_dict(state["means"])
        self._run.timing.restore(state["wall_s"], state["phases_s"])
        if self._run.rank:
            return
        self.rewind(state["num_agreements"])
        if state["evaluation"] is not None:
            fields, self._evaluated_at = state["evaluation"]
            self._evaluation = Evaluation(**fields)


def check_finite(losses: dict[str, float], step: int) -> None:
    """Raise TrainingDiverged if a mean loss since the last log line is not a number."""
    for kind in ("selected", "plain"):
        loss = losses.get(f"loss/{kind}", 0.0)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"step {step}: the loss of {kind} samples is {loss}; lower --lr or set --optim.clip-norm"
            )
