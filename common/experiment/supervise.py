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
from common.experiment.ranks import Ranks
from common.experiment.restarts import Restarts
from common.processes import KILL_S, TERM_S
from common.run_folder import METRICS, SUMMARY

TICK_S = 0.1
STOP_S = 180.0  # a stopped trainer completes its step, saves and evaluates; a disk that hangs it gives up before
LEAVE_S = 5.0  # scorers hear of the end from the trainer
END_S = STOP_S + LEAVE_S + 3 * (TERM_S + KILL_S)  # a stopped run has ended by then what hangs, trainers and scorers


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
    """Starts trainers and scorers, and sees to it that in the end all of them have ended. Main thread only.

    Args:
        num_restarts: starts of each scorer beyond its first; 0 leaves a trainer that crashed, too.
    """

    def __init__(
        self, ranks: Ranks, scorers: Sequence[Member], stop: StopSignals, watch: Watch, *, num_restarts: int
    ) -> None:
        self._ranks = ranks
        self._scorers = scorers
        self._stop = stop
        self._watch = watch
        self._may_resume = num_restarts > 0
        self._restarts = Restarts(scorers, num_restarts, watch.say)
        self._has_trained = False
        self._ending = ""  # what happens once the end has begun

    def run(self, *, resume: bool) -> Outcome:
        """Watches until the trainers have ended or a signal comes.

        Args:
            resume: they go on with the run in its folder.
        """
        self._ranks.start(resume=resume)
        for scorer in self._scorers:
            scorer.start()
        while not self._stop.received:
            self._show()
            if self._refused_scorer() is not None or not (self._ranks.is_running or self._resume()):
                break
            self._restarts.tick()
            if not self._watch.progress.is_complete:  # else the trainer has sent them home for good
                self._restarts.follow_trainer(self._ranks.first)
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
        if self._has_trained or self._ranks.code not in (None, 0):
            return None
        return next((scorer for scorer in self._scorers if scorer.is_hopeless), None)

    def _resume(self) -> bool:
        """Starts trainers again, once, if one crashed. Those that recorded no step would crash in the same way."""
        ranks, progress = self._ranks, self._watch.progress
        self._end_other_ranks()
        self._show()  # what was recorded last counts
        failed = ranks.failed
        has_ended = (progress.folder / SUMMARY).exists()  # and crashed on its way out
        if failed is None or not ranks.has_crashed or has_ended or not progress.is_training:
            return False
        is_held = any(child.is_running for child in ranks.children)  # by the kernel, whatever we sent it
        if not self._may_resume or ranks.num_restarts or is_held or self._stop.received:
            return False
        which = "resumed once from its" if len(ranks.members) == 1 else "all trainers are resumed once from their"
        self._watch.say(
            f"{failed.now.fate()} after step {progress.step}; {which} last checkpoint, if there is one, "
            f"see {short(failed.now.log)}"
        )
        progress.await_trainer()
        ranks.restart()
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> Outcome:
        patient = self._until_another_signal()
        refused = self._refused_scorer()
        if refused is not None:
            self._ending = "ending: a scorer cannot take part…"
            end_all(self._everyone(), tick=patient)
            return Outcome(refused.now.code or REFUSED, refused.now)
        ranks = self._ranks
        signalled = self._stop.received[0] if ranks.is_running and self._stop.received else None
        is_killed = False
        if signalled is not None:
            self._ending = f"{signalled.name}: completing the step and saving; once more ends everything at once"
            ranks.terminate()
            if not ranks.await_end(STOP_S, tick=patient):
                is_killed = ranks.failed is None
                ranks.kill()
                for scorer in self._scorers:
                    scorer.now.kill()
        self._end_other_ranks()
        scorers = [scorer.now for scorer in self._scorers]
        self._ending = "ending the scorers…" if scorers else ""
        if ranks.code == 0 or signalled is not None:
            await_end(scorers, LEAVE_S, tick=patient)  # they end by themselves
        end_all(scorers, tick=patient)
        code, blamed = ranks.code, ranks.to_blame.now
        assert code is not None, "the trainers have ended"
        if signalled is not None and code != 0:  # 0: the signal came after the last step
            stopped = is_killed or code == 128 + signal.SIGTERM
            return Outcome(128 + signalled, None if stopped else blamed)
        return Outcome(code, blamed if code else None)

    def _end_other_ranks(self) -> None:
        """One has failed, for which the others wait in vain, or rank 0 has come to its end, and the others should have.

        They have a while where they may end by themselves: for the same reason, or as nothing is left but to save.
        """
        ranks, failed = self._ranks, self._ranks.failed
        if not any(child.is_running for child in ranks.children):
            return
        within_s = LEAVE_S
        self._watch.refresh()
        if failed is not None:
            self._ending = f"{failed.now.fate()}: ending the other ranks…"
            if self._watch.progress.is_complete:
                within_s = STOP_S
            elif failed.now.killed_by is not None:
                within_s = 0.0
        ranks.end_rest(within_s, tick=self._until_another_signal())
        self._ending = ""

    def _everyone(self) -> list[Child]:
        return [*self._ranks.children, *(scorer.now for scorer in self._scorers)]

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
        status = status_of(self._watch.progress, self._ranks.first.now, self._restarts.words())
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
