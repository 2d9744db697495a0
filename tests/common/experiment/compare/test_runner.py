"""Trials as child processes, with children that need no torch: what becomes of them, and of a signal."""

import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.experiment import children
from common.experiment.children import Child, StopSignals
from common.experiment.compare import runner as runner_module
from common.experiment.compare.arms import read_arms
from common.experiment.compare.runner import Runner, in_one_line
from common.experiment.compare.show import PlainBoard
from common.experiment.compare.trials import Trial, plan_trials, record_of
from common.experiment.supervise import LEAVE_S, STOP_S
from common.locks import try_lock
from common.processes import KILL_S, TERM_S
from tests.common.experiment.planted import evaluation, plant

Begin = Callable[[Trial, str | None], Child]


class Fake:
    """Starts children by what is to become of the arm; keeps who was started on which device."""

    def __init__(self, **fates: str) -> None:
        self._fates = fates
        self.started: list[tuple[str, str | None]] = []
        self.children: list[Child] = []

    def __call__(self, trial: Trial, device: str | None) -> Child:
        self.started.append((trial.name, device))
        fate = self._fates.get(trial.arm.name, "done")
        if fate == "done":
            plant(trial.folder, trial.options, metrics=[evaluation(10, 0.875)])
        trial.log.parent.mkdir(parents=True, exist_ok=True)
        code = {"done": "pass", "idle": "pass", "sleep": "import time; time.sleep(100)"}.get(fate, fate)
        with trial.log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code], stdout=output, stderr=output, start_new_session=True
            )
        self.children.append(Child(trial.name, process, trial.log))
        return self.children[-1]


@contextlib.contextmanager
def runner(begin: Begin, **options: object) -> Iterator[tuple[Runner, StopSignals, io.StringIO]]:
    said = io.StringIO()
    with StopSignals() as stop:
        yield Runner(stop, PlainBoard(said), begin=begin, **options), stop, said  # type: ignore[arg-type]


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return plan_trials(read_arms(["uniform", "fresh", "stale:8"], {"steps": 10, "batch_size": 8}), [0, 1], tmp_path)


def test_all_trials_run_in_order_and_each_is_said(trials: list[Trial]) -> None:
    fake, told = Fake(), []
    with runner(fake) as (run, _, said):
        assert run.run("toy", trials, tell=lambda failed: told.append(dict(failed))) == {}
    assert [name for name, _ in fake.started] == [trial.name for trial in trials]
    assert said.getvalue().splitlines()[-1] == "6/6 stale:8, seed 1: held-out accuracy 87.50%, 0:00"
    assert told == [{}] * 6


def test_a_failed_arm_is_reported_and_the_others_finish(trials: list[Trial]) -> None:
    fake = Fake(fresh="import sys; sys.exit('error: --lr must be lower')")
    with runner(fake) as (run, _, said):
        errors = run.run("toy", trials)
    assert errors == {trials[1].folder: "--lr must be lower", trials[4].folder: "--lr must be lower"}
    assert "2/6 fresh, seed 0: failed: --lr must be lower, 0:00" in said.getvalue()
    assert [record_of(trial) is not None for trial in trials] == [True, False, True] * 2


def test_what_is_complete_is_kept_and_what_is_partial_runs_again(trials: list[Trial]) -> None:
    plant(trials[0].folder, trials[0].options)
    plant(trials[1].folder, trials[1].options, stopped_by="SIGTERM")
    (trials[1].folder / "left.over").touch()
    fake = Fake()
    with runner(fake) as (run, _, _):
        run.run("toy", trials)
    assert [name for name, _ in fake.started] == [trial.name for trial in trials[1:]]
    assert not (trials[1].folder / "left.over").exists()


def test_a_run_that_ends_well_without_a_record_has_failed(trials: list[Trial]) -> None:
    with runner(Fake(uniform="idle")) as (run, _, _):
        errors = run.run("toy", trials[:1])
    assert errors[trials[0].folder].startswith("it ended without a complete record in ")


def test_a_signal_ends_the_running_child_and_starts_no_other(trials: list[Trial]) -> None:
    fake = Fake(fresh="sleep")

    def begin(trial: Trial, device: str | None) -> Child:
        child = fake(trial, device)
        if trial.arm.name == "fresh":
            signal.raise_signal(signal.SIGTERM)
        return child

    with runner(begin) as (run, stop, _):
        errors = run.run("toy", trials)
        assert stop.received == [signal.SIGTERM]
    assert errors == {}
    assert [child.code for child in fake.children] == [0, 128 + signal.SIGTERM]


def test_a_further_signal_is_passed_on_so_that_a_run_can_end_what_hangs(
    trials: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (children, runner_module):
        monkeypatch.setattr(module, "SAME_SIGNAL_S", 0.0)
    heard = tmp_path / "heard"
    code = (
        "import signal, sys\nheard = []\n"
        "def hear(*_):\n    heard.append(1); open(sys.argv[0], 'a').write('x'); len(heard) < 2 or sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, hear); open(sys.argv[0], 'w').close()\nwhile True: signal.pause()"
    ).replace("sys.argv[0]", repr(str(heard)))

    class Insisting(PlainBoard):
        def show(self, board: object, *, now: bool = False) -> None:
            if heard.exists() and len(heard.read_text()) == len(stop.received) < 2:
                signal.raise_signal(signal.SIGINT)

    fake = Fake(uniform=code)
    with StopSignals() as stop:
        Runner(stop, Insisting(io.StringIO()), begin=fake).run("toy", trials[:1])
    assert heard.read_text() == "xx"
    assert fake.children[0].ended_by == "exit code 7"


def test_a_run_has_the_time_to_end_a_trainer_that_hangs_before_it_is_killed_itself(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(runner_module, "await_end", lambda children, within_s, *, tick: waited.append(within_s))

    def begin(trial: Trial, device: str | None) -> Child:
        signal.raise_signal(signal.SIGTERM)
        return fake(trial, device)

    fake = Fake(uniform="sleep")
    with runner(begin) as (run, _, _):
        run.run("toy", trials[:1])
    assert waited[0] > STOP_S + LEAVE_S + TERM_S + KILL_S


def test_an_error_of_our_own_leaves_no_child_behind(trials: list[Trial]) -> None:
    fake = Fake(uniform="sleep")

    def begin(trial: Trial, device: str | None) -> Child:
        if trial.arm.name == "fresh":
            raise OSError("no room for its log")
        return fake(trial, device)

    with runner(begin, side_by_side=2) as (run, _, _), pytest.raises(OSError, match="no room"):
        run.run("toy", trials)
    assert [child.is_running for child in fake.children] == [False]


def test_nothing_starts_where_a_later_trial_would_overwrite_something(trials: list[Trial]) -> None:
    trials[4].folder.mkdir(parents=True)
    (trials[4].folder / "thesis.tex").touch()
    fake = Fake()
    with runner(fake) as (run, _, _), pytest.raises(ConfigError, match="is in the way of fresh, seed 1"):
        run.run("toy", trials)
    assert fake.started == []


def test_side_by_side_each_run_takes_the_device_that_is_least_busy(trials: list[Trial]) -> None:
    fake = Fake(uniform="sleep", fresh="sleep")

    def begin(trial: Trial, device: str | None) -> Child:
        child = fake(trial, device)
        if len(fake.started) == 2:
            signal.raise_signal(signal.SIGINT)
        return child

    with runner(begin, side_by_side=2, devices=("cuda:0", "cuda:1")) as (run, _, _):
        run.run("toy", trials)
    assert fake.started == [("uniform, seed 0", "cuda:0"), ("fresh, seed 0", "cuda:1")]


def test_a_run_of_a_killed_comparison_is_waited_for_before_its_folder_is_cleared(trials: list[Trial]) -> None:
    trial = trials[0]
    trial.folder.mkdir(parents=True)
    orphans_log = trial.log.open("ab")
    assert try_lock(orphans_log)
    said: list[str] = []

    class Watching(PlainBoard):
        def show(self, board: object, *, now: bool = False) -> None:
            status = getattr(board, "status", "")
            if status:
                said.append(status)
                orphans_log.close()  # it has ended

    fake = Fake()
    with StopSignals() as stop:
        Runner(stop, Watching(io.StringIO()), begin=fake).run("toy", [trial])
    assert said[0].startswith("uniform, seed 0: waiting for the run of an earlier comparison to end")
    assert record_of(trial) is not None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("error: --lr must be lower", "--lr must be lower"),
        ("error: one\ntwo\nscorer-0 ended with exit code 1 before the end\nRun folder: x", "one two"),
        ("error: one\nStarted again: trainer (once, after SIGKILL)\nRun folder: x", "one"),
        ("error: one\nGo on with: marginstream run --config x/options.toml --resume\nRun folder: x", "one"),
        ("error: scorer-0 was refused", "scorer-0 was refused"),
        (
            "error: trainer ended with exit code 1; the end of t.log:\n  Traceback\n  ValueError: no\nRun folder: y",
            "trainer ended with exit code 1: ValueError: no",
        ),
        ("", "it gave no reason"),
    ],
)
def test_an_error_becomes_one_line(error: str, line: str) -> None:
    assert in_one_line(error) == line
