"""The benchmark around runs that are planted instead of trained; its real figures are for quiet machines."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import to_toml
from common.experiment.children import Child
from common.experiment.compare import runner
from common.experiment.compare.trials import Trial
from tests.bench import bench_time_to_target
from tests.bench.target import runs
from tests.common.experiment.planted import evaluation, plant

ENOUGH = {"uniform": 900, "fresh": 300, "stale": 250}  # steps to 99 %, at a learning rate of .1
STEP_S = {"uniform": 0.02, "fresh": 0.05, "stale": 0.025}
NOT_A_NUMBER = "import sys; sys.exit('error: step 1: the loss of plain samples is nan; lower --lr or set --optim')"


class Planter:
    """In place of `marginstream run`: a folder with what a run would have come to. Training at rates above 1 fails."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def __call__(self, trial: Trial, device: str | None) -> Child:
        options = trial.options
        self.started.append(f"{options.mode} {options.steps} seed {options.seed}")
        trial.folder.parent.mkdir(parents=True, exist_ok=True)
        trial.folder.with_name(f"{trial.folder.name}.toml").write_text(to_toml(options.dump()))
        command = [sys.executable, "-I", "-S", "-c", NOT_A_NUMBER] if options.lr > 1 else ["true"]
        if options.lr <= 1:
            error = 0.01 * ENOUGH[options.mode] / options.steps * (1 + abs(math.log(options.lr / 0.1)))
            seconds = STEP_S[options.mode] * options.steps / (options.threads or 1)
            plant(trial.folder, options, metrics=[evaluation(1, 0.1)], accuracy=1 - error, train_s=seconds)
        with trial.log.open("wb") as output:
            process = subprocess.Popen(command, stderr=output, start_new_session=True)
        return Child(trial.name, process, trial.log)


@pytest.fixture
def planter(monkeypatch: pytest.MonkeyPatch) -> Planter:
    planter = Planter()
    monkeypatch.setattr(runs, "start_run", planter)
    monkeypatch.setattr(runs, "_begin_two_processes", planter)
    monkeypatch.setattr(runner, "TICK_S", 0.002)
    monkeypatch.setattr(bench_time_to_target, "usable_cores", lambda: 2)
    return planter


def bench(tmp_path: Path, *words: str) -> dict[str, object]:
    return bench_time_to_target.main(
        ["--out", str(tmp_path / "runs"), "--data", "digits", "--target", "0.99", "--growth", "1.3", *words]
    )


def test_bench_time_to_target_ends_in_one_json_line_with_its_speedups(
    planter: Planter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(tmp_path, "--rounds", "2", "--stale", "candidates=320,push-every=4", "--fresh", "candidates=320")
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    arms = line["arms"]
    assert line["best_plain"] == "plain, 2 threads"
    for name, figures in arms.items():
        enough = ENOUGH["uniform" if "plain" in name else name]
        assert figures["steps_over"] < enough <= figures["steps"], name
        assert figures["rounds"] == (0 if name in ("plain, 1 thread", "plain, 2 processes") else 2), name
        assert figures["start_s"] > 0
    for kind in ("fresh", "stale"):
        seconds = arms["plain, 2 threads"]["train_s"] / arms[kind]["train_s"]
        assert line[f"{kind}_speedup"] == pytest.approx(seconds, rel=1e-3)
        low, high = line[f"{kind}_speedup_interval"]
        assert low <= line[f"{kind}_speedup"] <= high
    assert {"cpu", "versions"} <= line["machine"].keys()

    started = len(planter.started)
    again = bench(tmp_path, "--rounds", "2", "--stale", "candidates=320,push-every=4", "--fresh", "candidates=320")
    assert len(planter.started) == started, "complete runs are not repeated"
    assert again["stale_speedup"] == line["stale_speedup"]


def test_without_time_what_is_known_is_reported_as_bounds(
    planter: Planter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--seeds", "1", "--rounds", "0", "--arms", "plain-1", "stale"]
    bench(tmp_path, *common, "--max-steps", "400")
    result = bench(tmp_path, *common, "--max-steps", "400", "--max-minutes", "0")
    assert result["is_complete"] is True, "what has run already costs no time"
    assert result["stale_speedup"] is None, "plain training does not reach it within 400 steps"
    plain, stale = result["arms"]["plain, 1 thread"], result["arms"]["stale"]
    assert plain["steps_over"] > 300
    assert plain["steps_at_most"] is None
    assert result["stale_speedup_at_least"] == pytest.approx(
        plain["steps_over"] * STEP_S["uniform"] / (stale["steps"] * STEP_S["stale"])
    )
    assert "more than" in capsys.readouterr().out
    late = bench_time_to_target.main(
        ["--out", str(tmp_path / "late"), "--data", "digits", "--target", "0.99", "--max-minutes", "0"]
    )
    assert late["is_complete"] is False
    assert late["stale_speedup_at_least"] is None


def test_each_group_gets_the_best_rate_of_one_grid_and_a_rate_that_diverges_loses(
    planter: Planter, tmp_path: Path
) -> None:
    result = bench(tmp_path, "--seeds", "1", "--rounds", "0", "--arms", "plain-1", "stale", "--lrs", "0.05", "0.1", "2")
    assert {group: each["lr"] for group, each in result["tuned"].items()} == {"plain": 0.1, "stale": 0.1}
    assert result["tuned"]["plain"]["accuracy"][2.0] == 0.0
    assert result["options"]["plain"] == "lr=0.1"
    assert result["options"]["stale"].endswith(",lr=0.1")
    assert "lr=" not in result["options"]["fresh"], "no arm of that group was wanted"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "digits"], "--target must be an accuracy between 0 and 1 for --data digits, got None"),
        ([], "--data mnist needs --data-root"),
        (["--data-root", "here", "--steps", "100"], "--steps is what this benchmark looks for"),
        (["--data-root", "here", "--learning", "3"], "--learning"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench_time_to_target.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_trains_every_arm_to_an_easy_target(tmp_path: Path) -> None:
    result = bench_time_to_target.main(
        [
            *("--out", str(tmp_path / "runs"), "--data", "digits", "--model", "small", "--batch-size", "16"),
            *("--target", "0.9", "--growth", "2", "--start-steps", "80", "--seeds", "1", "--rounds", "1"),
            *("--stale", "candidates=64,fallback=wait", "--fresh", "candidates=64"),
        ]
    )
    assert result["is_complete"] is True
    assert result["stale_speedup"] > 0
    assert result["fresh_speedup"] > 0
