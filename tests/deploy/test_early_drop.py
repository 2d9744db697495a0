"""The script of the paper's early-drop table: what it would run, and a toy-sized run of all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "early-drop.sh"
TOY = (
    *("--data", "digits", "--model", "small", "--steps", "40", "--batch-size", "8", "--candidates", "80"),
    *("--schedule.milestones", "20", "30", "--log.eval-every", "20", "--seeds", "0", "--lr", "0.02"),
)


def early_drop(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """The script with this environment's `marginstream`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command, environment = ["bash", SCRIPT, *words], {**os.environ, "PATH": path}
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("table", "steps"),
    [("cifar10", (44000, 156000)), pytest.param("cifar100", (80000, 156200), marks=pytest.mark.slow)],
)
def test_it_would_run_the_papers_schedules(table: str, steps: tuple[int, int], tmp_path: Path) -> None:
    done = early_drop(table, tmp_path / "out", "--dry-run", "--data-root", "/nowhere")
    assert done.returncode == 0, done.stderr
    for number in steps:
        assert f"steps = {number}" in done.stdout
    for arm in ("uniform", "fresh", "fresh:method=loss", "stale:8", "stale:64"):
        assert f"{arm}, seed 2: {tmp_path}/out/early/runs/" in done.stdout
    assert f"uniform, seed 2: {tmp_path}/out/normal/runs/" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_there_is_refused() -> None:
    done = early_drop("mnist", "out")
    assert done.returncode == 2
    assert "no such table: mnist; usage:" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_toy_of_the_table_runs_to_its_end_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    done = early_drop("cifar10", tmp_path, *TOY)
    assert done.returncode == 0, done.stderr
    names = {}
    for part in ("early", "normal"):
        results = json.loads((tmp_path / part / "results.json").read_text())
        names[part] = [arm["name"] for arm in results["arms"]]
        assert {run["status"] for arm in results["arms"] for run in arm["runs"]} == {"done"}
        assert (tmp_path / part / "report.html").stat().st_size > 10_000
    assert {"uniform", "fresh", "fresh:method=loss", "stale:8", "stale:64"} <= set(names["early"])
    assert "uniform" in names["normal"]

    summary = tmp_path / "early" / "runs" / "stale-8" / "seed-0" / "summary.json"
    kept = tmp_path / "early" / "runs" / "fresh" / "seed-0" / "summary.json"
    summary.unlink()  # as if it had been killed there
    before = kept.stat().st_mtime_ns
    assert early_drop("cifar10", tmp_path, *TOY).returncode == 0
    assert summary.exists()
    assert kept.stat().st_mtime_ns == before
