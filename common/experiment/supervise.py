"""Watching over the processes of one run, from the first to the last of them, and starting again those that died."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.experiment.children import Child, StopSignals, await_end, end_all
from common.experiment.display import Display, short
from common.experiment.members import REFUSED, Member
from common.experiment.progress import Progress, Tail
from common.experiment.restarts import Restarts
from common.run_folder import METRICS, SUMMARY

TICK_S = 0.1
STOP_S = 180.0  # a stopped trainer completes its step, saves and evaluates; a disk that hangs it gives up before
LEAVE_S = 5.0  # scorers hear of the end from the trainer


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: exit code of the whole run.
        failed: the process whose error ended it.
        lost: scorers that failed while it went on, and were not there in the end.
        has_trained: whether a step was recorded.
    """

    code: int
    failed: Child | None
    lost: tuple[Member, ...] = ()
    has_trained: bool = True


class Watch:
    """Brings progress up to date from the run folder and shows it."""

    def __init__(self, progress: Progress, display: Display) -> None:
        self.progress = progress
        self._display = display
        self._tail = Tail(progress.folder / METRICS)
        if progress.options.resume:
            progress.follow(self._tail)  # so far it is all of earlier trainers
            progress.await_trainer()

    def refresh(self) -> None:
        self.progress.follow(self._tail)

    def show(self, status: str, *, now: bool = False) -> None:
        self.progress.status = status
        try:
            self._display.show(self.progress, now=now)
        except OSError:
            go_silent()

    def say(self, text: str) -> None:
        try:
            self._display.say(text)
        except OSError:
            go_silent()


class Supervisor:
    """Starts trainer and scorers, and sees to it that in the end all of them have ended. Main thread only.

    Args:
        num_restarts: starts of each scorer beyond its first; 0 leaves a trainer that crashed, too.
    """

    def __init__(
        self, trainer: Member, scorers: Sequence[Member], stop: StopSignals, watch: Watch, *, num_restarts: int
    ) -> None:
        self._trainer = trainer
        self._scorers = scorers
        self._stop = stop
        self._watch = watch
        self._may_resume = num_restarts > 0
        self._restarts = Restarts(scorers, num_restarts, watch.say)
        self._has_trained = False
        self._ending = ""  # what happens once the end has begun

    def run(self, *, resume: bool) -> Outcome:
        """Watches until the trainer has ended or a signal comes.

        Args:
            resume: the trainer goes on with the run in its folder.
        """
        self._trainer.start(resume=resume)
        for scorer in self._scorers:
            scorer.start()
        while not self._stop.received:
            self._show()
            if self._refused_scorer() is not None or not (self._trainer.is_running or self._resume()):
                break
            self._restarts.tick()
            if not self._watch.progress.is_complete:  # else the trainer has sent them home for good
                self._restarts.follow_trainer(self._trainer)
            time.sleep(TICK_S)
        self._show()
        lost = tuple(scorer for scorer in self._scorers if scorer.has_failed)
        outcome = self._end()
        self._ending = ""
        self._show(now=True)
        kept_on = self._has_trained or outcome.code == 0
        return Outcome(outcome.code, outcome.failed, lost if kept_on else (), self._has_trained)

    def _refused_scorer(self) -> Member | None:
        """One that cannot take part in what has not begun."""
        if self._has_trained or self._trainer.now.code not in (None, 0):
            return None
        return next((scorer for scorer in self._scorers if scorer.is_hopeless), None)

    def _resume(self) -> bool:
        """Starts a trainer that crashed again, once. One that recorded no step would crash in the same way."""
        trainer, progress = self._trainer, self._watch.progress
        self._show()  # what it recorded last counts
        has_ended = (progress.folder / SUMMARY).exists()  # and crashed on its way out
        if not self._may_resume or trainer.num_restarts or not trainer.has_crashed or has_ended:
            return False
        if not progress.is_training:
            return False
        self._watch.say(
            f"{trainer.now.fate()} after step {progress.step}; resumed once from its last checkpoint, see "
            f"{short(trainer.now.log)}"
        )
        progress.await_trainer()
        trainer.restart(resume=True)
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> Outcome:
        patient = self._until_another_signal()
        refused = self._refused_scorer()
        if refused is not None:
            self._ending = "ending: a scorer cannot take part…"
            end_all(self._everyone(), tick=patient)
            return Outcome(refused.now.code or REFUSED, refused.now)
        trainer = self._trainer
        signalled = self._stop.received[0] if trainer.is_running and self._stop.received else None
        is_killed = False
        if signalled is not None:
            self._ending = f"{signalled.name}: completing the step and saving; once more ends everything at once"
            trainer.now.terminate()
            is_killed = not await_end([trainer.now], STOP_S, tick=patient)
            if is_killed:
                for child in self._everyone():
                    child.kill()
        scorers = [scorer.now for scorer in self._scorers]
        self._ending = "ending the scorers…" if scorers else ""
        if trainer.now.code == 0 or signalled is not None:
            await_end(scorers, LEAVE_S, tick=patient)  # they end by themselves
        end_all(scorers, tick=patient)
        code = trainer.now.code
        assert code is not None, "the trainer has ended"
        if signalled is not None and code != 0:  # 0: the signal came after the last step
            stopped = is_killed or code == 128 + signal.SIGTERM
            return Outcome(128 + signalled, None if stopped else trainer.now)
        return Outcome(code, trainer.now if code else None)

    def _everyone(self) -> list[Child]:
        return [member.now for member in (self._trainer, *self._scorers)]

    def _until_another_signal(self) -> Callable[[], bool]:
        """A tick that shows progress and says whether to go on waiting: not once a further signal has come."""
        so_far = len(self._stop.received)

        def tick() -> bool:
            self._show()
            return len(self._stop.received) == so_far

        return tick

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _show(self, *, now: bool = False) -> None:
        self._watch.refresh()
        status = status_of(self._watch.progress, self._trainer.now, self._restarts.words())
        self._watch.show(self._ending or status, now=now)
        self._has_trained |= self._watch.progress.is_training


def status_of(progress: Progress, trainer: Child, wrong: str) -> str:
    """What happens at the moment, where figures do not tell; "" is the usual.

    Args:
        wrong: with scorers.
    """
    doing = ""
    if trainer.is_running and not progress.is_training:
        said = trainer.says(1)
        starting = _message(said[0]) if said else "starting: importing torch, opening the data…"
        return "; ".join(part for part in (wrong, starting) if part)
    if trainer.is_running and progress.is_complete:
        return "evaluating and saving…"
    if trainer.is_running and progress.figures.get("degraded"):
        doing = "DEGRADED: no scorer serves, steps fall back"
    return "; ".join(part for part in (doing, wrong) if part)


def _message(line: str) -> str:
    """The message of a log line, without its time, level and logger."""
    return line.partition(": ")[2] if line[:4].isdecimal() and ": " in line else line


def go_silent() -> None:
    """Whoever read our output has gone. The run goes on without, so what is written from now on goes nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
