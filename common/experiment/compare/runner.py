"""Trials as child processes, one after another or side by side on devices, until all have ended or a signal comes."""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.experiment.children import Child, StopSignals, await_end
from common.experiment.compare.board import Board, Running
from common.experiment.compare.show import BoardDisplay, ended_line
from common.experiment.compare.trials import Trial, check_is_free, clear, record_of
from common.experiment.display import short
from common.experiment.supervise import END_S, TICK_S, go_silent
from common.locks import try_lock
from common.processes import SAME_SIGNAL_S, TERM_S, start

END_OF_LOG = "; the end of "
CLOSING = ("Run folder: ", "scorer-", "Started again: ", "Go on with: ")  # what `run` says after the error

Start = Callable[[Trial, str | None], Child]


class Runner:
    """Runs trials and keeps the board. Main thread only: children end when the thread that started them does.

    Args:
        devices: taken by the runs, the least busy one first; empty leaves it to the options of the run.
        begin: starts a trial on a device.
    """

    def __init__(
        self,
        stop: StopSignals,
        display: BoardDisplay,
        *,
        side_by_side: int = 1,
        devices: Sequence[str] = (),
        begin: Start | None = None,
    ) -> None:
        self._stop = stop
        self._display = display
        self._side_by_side = side_by_side
        self._devices = devices
        self._begin = start_run if begin is None else begin

    def run(
        self, title: str, trials: Sequence[Trial], *, tell: Callable[[dict[Path, str]], None] = lambda failed: None
    ) -> dict[Path, str]:
        """Runs the trials that have no record yet.

        Args:
            tell: called after each trial that ended, with the errors so far.

        Returns:
            Errors of those that failed, by folder. After a signal, `stop.received` says so and the rest has not run.

        Raises:
            ConfigError: a folder holds a finished run with other options, or no run at all.
        """
        todo = [trial for trial in trials if record_of(trial) is None]
        for trial in todo:
            check_is_free(trial)
        board = Board(title, todo, num_kept=len(trials) - len(todo), side_by_side=self._side_by_side)
        failed: dict[Path, str] = {}
        try:
            while (board.waiting or board.running) and not self._stop.received:
                while len(board.running) < self._side_by_side and not self._stop.received and self._next(board):
                    pass
                time.sleep(TICK_S)
                for running in [each for each in board.running if not each.child.is_running]:
                    error = self._end(board, running)
                    if error is not None:
                        failed[running.trial.folder] = error
                    tell(failed)
                self._show(board)
        finally:
            self._end_all(board)
        return failed

    def _next(self, board: Board) -> bool:
        """Starts the first trial that waits, unless a run of a comparison that was killed still saves into its folder.

        Returns:
            Whether one was started.
        """
        if not board.waiting:
            return False
        trial = board.waiting[0]
        if not _is_unlocked(trial.log):
            board.status = f"{trial.name}: waiting for the run of an earlier comparison to end, see {short(trial.log)}"
            return False
        board.status = ""
        clear(trial)
        busy = [running.device for running in board.running]
        device = min(self._devices, key=busy.count) if self._devices else None
        child = self._begin(trial, device)
        board.waiting.pop(0)
        board.started(trial, child, device)
        self._show(board, now=True)
        return True

    def _end(self, board: Board, running: Running) -> str | None:
        """Books a run that has ended. Returns its error."""
        running.refresh()
        error = None
        if running.child.code != 0:
            error = in_one_line(running.child.error())
        elif record_of(running.trial) is None:
            error = f"it ended without a complete record in {running.trial.folder}"
        board.ended(running, error)
        self._say(ended_line(board, running, error))
        return error

    def _end_all(self, board: Board) -> None:
        """Asks what still runs to save and end; passes a further signal on, and insists after one more or too long.

        A run that is killed cannot end its processes: those that hang would be left behind.
        """
        children = [running.child for running in board.running]
        if not children:
            return
        what = "the run is" if len(children) == 1 else "the runs are"
        board.status = f"{what} told to end and will be repeated; once more ends everything at once"
        told_at = time.monotonic()
        for child in children:
            child.terminate()
        if not await_end(children, END_S, tick=self._until_another_signal(board)):
            patient = self._until_another_signal(board)
            await_end(children, told_at + 2 * SAME_SIGNAL_S - time.monotonic(), tick=patient)  # else taken for the same
            for child in children:
                child.terminate()
            await_end(children, TERM_S, tick=patient)
        for child in children:
            child.kill()

    def _until_another_signal(self, board: Board) -> Callable[[], bool]:
        """A tick that shows the board and says whether to go on waiting: not once a further signal has come."""
        so_far = len(self._stop.received)

        def tick() -> bool:
            self._show(board)
            return len(self._stop.received) == so_far

        return tick

    def _show(self, board: Board, *, now: bool = False) -> None:
        for running in board.running:
            running.refresh()
        try:
            self._display.show(board, now=now)
        except OSError:
            go_silent()

    def _say(self, text: str) -> None:
        try:
            self._display.say(text)
        except OSError:
            go_silent()


def start_run(trial: Trial, device: str | None) -> Child:
    """`marginstream run` with the trial's options; it ends in order when this process dies, in whatever way."""
    update: dict[str, object] = {"out": trial.folder}
    if device is not None:
        update |= {"device": device}
        if trial.options.scorer_device == "auto":
            update |= {"scorer_device": device}
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    trial.log.unlink(missing_ok=True)
    with trial.log.open("ab") as output:
        try_lock(output)  # the child inherits it: held for as long as the run lives
        process = start(
            "run",
            trial.options.model_copy(update=update),
            trial.folder.with_name(f"{trial.folder.name}.toml"),
            output=output,
            environment={"PYTHONUNBUFFERED": "1"},
            dies_with_parent=True,
        )
    return Child(trial.name, process, trial.log)


def in_one_line(error: str) -> str:
    """An error for a table: the message of the process; of one that gave none, how it ended and its last line."""
    lines = itertools.takewhile(lambda line: not line.startswith(CLOSING), error.splitlines())
    said = [text for line in lines if (text := line.strip().removeprefix("error: "))]
    if not said:
        return "it gave no reason"
    ending, found, _ = said[0].partition(END_OF_LOG)
    return f"{ending}: {said[-1]}" if found and len(said) > 1 else " ".join(said)


def _is_unlocked(log: Path) -> bool:
    try:
        with log.open("rb") as file:
            return try_lock(file)
    except FileNotFoundError:
        return True
