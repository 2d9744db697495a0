"""The command from flags to exit code, with children that need no torch; one test makes a real run."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from common import cli
from common.experiment.children import Child
from common.experiment.compare import command, runner
from common.experiment.compare.trials import Trial
from common.experiment.results import Results, read_results
from tests.common.experiment.compare.test_runner import Fake

TOY = ("--data", "synthetic", "--steps", "10", "--batch-size", "8", "--device", "cpu", "--threads", "1")


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Results]:
    """Results that a report was asked for."""
    asked: list[Results] = []
    monkeypatch.setattr(command, "_report", lambda results, records, root: asked.append(results))
    return asked


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    """Puts fake children in the place of real ones."""

    def use(**fates: str) -> Fake:
        fake = Fake(**fates)
        monkeypatch.setattr(runner, "start_run", fake)
        return fake

    return use


def compare(out: Path, *words: str) -> int:
    return cli.main(["compare", *TOY, "--out", str(out), *words])


def test_a_comparison_leaves_results_a_table_and_a_report(
    tmp_path: Path,
    children: Callable[..., Fake],
    reported: list[Results],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = children()
    assert compare(tmp_path, "--arms", "uniform", "stale:4", "--seeds", "0", "1", "--targets", "0.8") == 0
    assert [name for name, _ in fake.started] == [
        f"{name}, seed {seed}" for seed in (0, 1) for name in ("uniform", "uniform:threads=2", "stale:4")
    ]
    results = read_results(tmp_path)
    assert reported == [results]
    assert [arm.name for arm in results.arms] == ["uniform", "uniform:threads=2", "stale:4"]
    assert results.budget is not None
    assert (results.budget.kind, results.budget.amount, results.targets) == ("steps", 10.0, (0.8,))
    assert results.command.startswith("marginstream compare --data synthetic --steps 10")
    assert results.arms[2].reached[0].num_reached == 2
    shown = capsys.readouterr().out
    assert "accuracy and cost" in shown
    assert "stale:4 takes" in shown


def test_the_same_command_again_runs_nothing_again(
    tmp_path: Path, children: Callable[..., Fake], reported: list[Results]
) -> None:
    children()
    assert compare(tmp_path, "--arms", "uniform", "--seeds", "0") == 0
    second = children()
    assert compare(tmp_path, "--arms", "uniform", "--seeds", "0", "1") == 0
    assert [name for name, _ in second.started] == ["uniform, seed 1"]
    assert len(reported) == 2


def test_a_failed_arm_ends_the_command_with_1_and_is_tried_again(
    tmp_path: Path, children: Callable[..., Fake], reported: list[Results]
) -> None:
    children(fresh="import sys; sys.exit('error: too hot')")
    words = ("--arms", "uniform", "fresh", "--seeds", "0", "--no-equal-cores")
    assert compare(tmp_path, *words) == 1
    assert [arm.runs[0].error for arm in reported[0].arms] == [None, "too hot"]
    again = children()
    assert compare(tmp_path, *words) == 0
    assert [name for name, _ in again.started] == ["fresh, seed 0"]


def test_a_signal_ends_the_command_with_its_code_and_the_way_on(
    tmp_path: Path,
    children: Callable[..., Fake],
    reported: list[Results],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = children(uniform="sleep")

    def begin(trial: Trial, device: str | None) -> Child:
        child = fake(trial, device)
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(runner, "start_run", begin)
    assert compare(tmp_path, "--arms", "uniform", "--seeds", "0") == 130
    assert reported == []
    assert "Stopped by SIGINT. To go on where it stopped:\n  marginstream compare --data" in capsys.readouterr().out
    assert read_results(tmp_path).arms[0].runs[0].status == "missing"


def test_a_budget_in_operations_gives_each_arm_its_steps(
    tmp_path: Path, children: Callable[..., Fake], reported: list[Results]
) -> None:
    fake = children()
    words = ["compare", "--data", "synthetic", "--batch-size", "8", "--device", "cpu", "--no-equal-cores"]
    words += ["--arms", "uniform", "fresh", "--seeds", "0", "--budget-flops", "9600", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert len(fake.started) == 4  # two pilots
    steps = [arm.steps.mean for arm in reported[0].arms if arm.steps is not None]
    assert steps == [40, 30]  # 8 samples a step of 30 operations, and 10 more for scoring one candidate each
    assert reported[0].budget is not None
    assert reported[0].budget.kind == "flops"


def test_the_runs_of_an_arm_whose_pilot_failed_have_failed(
    tmp_path: Path, children: Callable[..., Fake], reported: list[Results]
) -> None:
    fake = children(fresh="import sys; sys.exit('error: too hot')")
    words = ["compare", "--data", "synthetic", "--batch-size", "8", "--device", "cpu", "--no-equal-cores"]
    words += ["--arms", "uniform", "fresh", "--seeds", "0", "1", "--budget-flops", "9600", "--out", str(tmp_path)]
    assert cli.main(words) == 1
    assert [run.error for run in reported[0].arms[1].runs] == ["its pilot: too hot"] * 2
    assert [name for name, _ in fake.started[2:]] == ["uniform, seed 0", "uniform, seed 1"]


def test_dry_run_prints_every_run_and_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path / "c", "--arms", "uniform", "stale:256", "--seeds", "0", "1", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "# stale:256: scores may be 512 steps old, two push periods" in shown
    assert shown.count(", seed ") == 6
    assert shown.count("max_staleness = 512") == 1
    assert not (tmp_path / "c").exists()


def test_a_real_run_is_started_and_accounted_for(tmp_path: Path, reported: list[Results]) -> None:
    words = ("--arms", "uniform", "--seeds", "3", "--log.eval-every", "5", "--targets", "0.01", "--log.no-tensorboard")
    assert compare(tmp_path, *words) == 0
    arm = reported[0].arms[0]
    assert (arm.runs[0].status, arm.runs[0].seed, arm.runs[0].folder) == ("done", 3, "runs/uniform/seed-3")
    assert (arm.runs[0].samples_trained, arm.runs[0].samples_scored) == (80, 0)
    assert arm.reached[0].num_reached == 1
    summary = json.loads((tmp_path / "runs" / "uniform" / "seed-3" / "summary.json").read_text())
    assert arm.runs[0].accuracy == summary["accuracy"]
