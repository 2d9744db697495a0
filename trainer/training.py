"""A run's training as a whole: what learns, its batches and its records, saved together and put back together.

Several ranks each have one, and take the same way through it: they save, and end, after the same steps.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from common.data.source import Source
from common.errors import ConfigError
from common.run import Run
from common.run_folder import drop_lines_after, of_rank
from trainer.checkpoint import Checkpoints
from trainer.learner import Learner
from trainer.ranks.follower import Follower
from trainer.ranks.group import ALONE, Group
from trainer.ranks.merge import merged
from trainer.ranks.reshard import resharded
from trainer.record import TRACE, Record
from trainer.stopping import Stopping
from trainer.stream import SelectedBatches

log = logging.getLogger(__name__)


class Training:
    """Of one run. Enter it inside the run; `resume` comes before that.

    Args:
        batches: entered with it.
        model: on its device; wrapped or not, but for several ranks not.
        stopping: who was asked to end the run, if anybody may.
        group: the ranks that train together.
    """

    def __init__(
        self,
        run: Run | Follower,
        batches: SelectedBatches,
        source: Source,
        model: nn.Module,
        stopping: Stopping | None = None,
        group: Group = ALONE,
    ) -> None:
        self.run = run
        self.batches = batches
        self.learner = Learner(run.options, model, group, batches.backward_begins)
        self.record = Record(run, batches, source, self.learner, stopping.is_late if stopping else lambda: False)
        self.checkpoints = Checkpoints(run.folder, run.options.checkpoint, group)
        batches.watched.checkpoints = self.checkpoints
        self._stopping = stopping
        self._group = group
        self._resumed_at = 0
        self._asked_at = -1  # the last step after which a checkpoint was begun
        self._closing = contextlib.ExitStack()
        if (ballot := self.learner.ballot) is not None:
            ballot.stop_wanted = lambda: stopping is not None and stopping.received is not None
            if group.is_first:  # one clock is enough
                ballot.save_wanted = self.checkpoints.due_by_time

    def __enter__(self) -> "Training":
        with contextlib.ExitStack() as opened:
            opened.callback(self.checkpoints.close)
            opened.enter_context(self.batches)
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.checkpoints.hurry()  # other ranks may be gone
        self._closing.__exit__(kind, error, traceback)

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
            self.learner.load_state_dict(state["learner"], draws_on=self._group.is_first)
            if state.get("rank") is not None:
                self.learner.load_rank_state_dict(state["rank"])
            batches = state["batches"]
            if "shards" in state:
                batches = resharded(state["shards"], self._group.shard, self.run.options)
            self.batches.load_state_dict(batches)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # what torch and all parts raise
            raise ConfigError(
                f"--resume: the checkpoint of step {step} is of another model, or of another version of this program: "
                f"{' '.join(str(error).split()).rstrip(' .')}; start a new run with another --out"
            ) from error
        self._rewind(step)  # once it is certain that the run goes on
        self.record.load_state_dict(state["record"])
        self.checkpoints.last_saved_step = self._resumed_at = self._asked_at = step
        log.info("going on after step %d, which generation %d had come to", step, state["generation"])

    def _rewind(self, step: int) -> None:
        """Take out what an earlier life recorded after `step`."""
        self.run.resume(step)
        self.checkpoints.forget_after(step)
        for trace in self._traces():
            drop_lines_after(trace, step - 1)  # a line counts the steps before its batch

    def _traces(self) -> Iterator[Path]:
        """This rank's, and at rank 0 those of ranks that an earlier life had more of."""
        yield self.run.folder / of_rank(TRACE, self.run.rank)
        if self._group.is_first:
            others = (self.run.folder / of_rank(TRACE, rank) for rank in itertools.count(self._group.size))
            yield from itertools.takewhile(Path.exists, others)

    def is_save_due(self) -> bool:
        """Whether a checkpoint is due after this step. Of several ranks it is for all of them, or for none.

        What else they have agreed on is done here too: to end after this step.
        """
        step, ballot = self.run.step, self.learner.ballot
        if ballot is None:
            return self.checkpoints.due(step)
        if ballot.agreed.stop:
            self.batches.stop()
        # Votes of steps before the last checkpoint asked for that one.
        by_time = ballot.agreed.save and ballot.agreed.step >= self._asked_at
        return by_time or self.checkpoints.due_by_steps(step)

    def save(self) -> None:
        """Write a checkpoint of this moment, between two steps. Whatever goes wrong, the run goes on."""
        step = self._asked_at = self.run.step
        with self.run.timing("checkpoint"):
            try:
                self.checkpoints.save(
                    step,
                    {
                        "step": step,
                        "generation": self.run.generation,
                        **self._learned(),
                        "record": self.record.state_dict(),
                    },
                    own={"batches": self.batches.state_dict()},
                )
            except Exception as error:  # a full disk, a batch that is not read: nothing that training depends on
                self.checkpoints.fail(step, error)

    def _learned(self) -> dict[str, Any]:
        """What learns is the same on all ranks, so rank 0 saves it; the others add what is theirs alone."""
        if self._group.size == 1:
            return {"learner": self.learner.state_dict()}
        saved = {"num_ranks": self._group.size}
        if self._group.is_first:
            return {**saved, "learner": self.learner.state_dict()}
        return {**saved, "rank": self.learner.rank_state_dict()}

    def finish(self) -> dict[str, Any]:
        """Of a run that was stopped before its last step, save that step; evaluate. Returns the summary.

        Rank 0's is of all ranks; they wait for its evaluation here.
        """
        is_over = self.run.step >= self.run.options.steps
        stopped_by = None if is_over else self._stopped_by()
        self.checkpoints.close()
        if stopped_by is not None and self._group.share(self.checkpoints.last_saved_step != self.run.step):
            self.save()
            self.checkpoints.close()  # before an evaluation that may be cut short by a second signal
        self.record.evaluate()
        self.batches.tally.end_audits()
        summary = {
            **self.record.summary(),
            "alarms": self.batches.watched.alarms,
            "checkpoints": {"saved": self.checkpoints.num_saved, "failed": self.checkpoints.num_failed},
            "resumed_at_step": self._resumed_at,
            "generation": self.run.generation,
        }
        if stopped_by is not None:
            summary["stopped_by"] = stopped_by
        if self._group.size > 1:
            summary["parameters"] = self.learner.digest()
            summary = merged(summary, self._group)
        return summary

    def _stopped_by(self) -> str | None:
        """The name of the signal that any rank got, the first of them if several did."""
        received = None if self._stopping is None else self._stopping.received
        names = self._group.gather(None if received is None else received.name)
        return next(filter(None, names), None)
