"""A plan of this machine, on a small thing and in little time."""

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import to_toml
from common.config.loading import load_options
from common.config.plan import PlanOptions
from common.config.run import RunOptions
from common.errors import ConfigError, DataError
from common.experiment.plan import command, measuring, neighbour
from common.experiment.plan.wire import wire_s
from common.experiment.plan.workbench import check_scored

SMALL = ["--data", "synthetic", "--model", "small", "--batch-size", "8", "--device", "cpu", "--scorer-device", "cpu"]
WORDS = [*SMALL, "--candidates", "24", "--measure-s", "0.05"]


class Stub:
    """A process that scores 1000 chunks a second, or one that has died."""

    def __init__(self, *, is_dead: bool = False) -> None:
        self.stdin = io.StringIO()
        self.stdout = io.StringIO("" if is_dead else "ready\n" + "1000\n" * measuring.TURNS)
        self.stderr = io.StringIO("error: no memory")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plan(monkeypatch: pytest.MonkeyPatch, *words: str, stub: Stub | None = None) -> int:
    monkeypatch.setattr(measuring, "_neighbour", lambda *_: contextlib.nullcontext(stub or Stub()))
    monkeypatch.setattr(measuring, "cores", lambda: [0, 1])
    monkeypatch.setattr(measuring, "pinned", lambda core: contextlib.nullcontext())
    given = [*WORDS, *words]
    return command.main(load_options(PlanOptions, given, prog="marginstream plan"), given)


def test_a_plan_measures_everything_and_ends_in_a_command_that_run_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, "--json") == 0
    said = capsys.readouterr()
    found: dict[str, Any] = json.loads(said.out)
    measured = found["measured"]
    assert set(measured["step_s"]) == {"1", "2"}
    assert {one["precision"] for one in measured["scoring"]} >= {"float32", "bf16"}
    assert {one["chunk"] for one in measured["scoring"]} == {16, 24}
    for name in ("forward_s", "read_s", "message_s", "push_s", "weights_s"):
        assert measured[name] > 0
    assert measured["together"]["candidates_per_s"] == 1000 * measured["together"]["chunk"]
    assert found["command"][:2] == ["marginstream", "run"]
    options = load_options(RunOptions, found["command"][2:])
    assert (options.candidates, options.precision) == (24, found["advice"]["precision"])
    assert "measuring: training and scoring at the same time" in said.err


def test_a_plan_is_printed_with_the_command_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, "--precision", "float32") == 0
    text = capsys.readouterr().out
    assert "Measured, medians:" in text
    assert text.rpartition("\n\n")[2].startswith(f"marginstream run {SMALL[0]}")
    assert "--measure-s" not in text


def test_a_precision_that_this_device_has_not_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="--precision fp16: for CUDA devices"):
        plan(monkeypatch, "--precision", "fp16")
    assert "training step" not in capsys.readouterr().err


def test_a_scorer_that_cannot_be_measured_is_an_error_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="ended: error: no memory"):
        plan(monkeypatch, stub=Stub(is_dead=True))


@pytest.mark.parametrize("words", [["--mode", "uniform", "--method", "uniform"], ["--mode", "fresh"]])
def test_there_is_nothing_to_plan_where_nothing_is_scored_beside_training(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="nothing to plan; choose --mode stale"):
        check_scored(load_options(PlanOptions, words))


def test_there_is_nothing_to_plan_without_scorers_or_a_core_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--scorers 0: .* leave it out"):
        check_scored(load_options(PlanOptions, ["--scorers", "0"]))
    with pytest.raises(ConfigError, match="with 2 threads each need 4 cores, and there are 2"):
        plan(monkeypatch, "--threads", "2")


def test_a_neighbour_scores_when_told_to_and_says_how_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.toml"
    file.write_text(to_toml({"data": "synthetic", "model": "small", "batch_size": 8}))
    monkeypatch.setattr(sys, "stdin", io.StringIO("0.01\n0.02\n"))
    neighbour.main([str(file), "cpu", "1", "float32", "16"])
    ready, *rates = capsys.readouterr().out.split()
    assert ready == "ready"
    assert len(rates) == 2
    assert all(float(rate) > 0 for rate in rates)


def test_messages_and_weights_take_time_on_the_wire() -> None:
    message_s, small_s = wire_s(16, 0)
    assert message_s > 0
    assert wire_s(16, 1 << 24)[1] > small_s


@pytest.mark.slow
def test_a_plan_with_a_real_neighbour(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measuring, "cores", lambda: [0, 1])
    words = [*WORDS, "--json"]
    assert command.main(load_options(PlanOptions, words), words) == 0
    assert json.loads(capsys.readouterr().out)["measured"]["together"]["candidates_per_s"] > 0
