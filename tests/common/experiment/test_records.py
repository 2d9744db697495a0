"""Run folders read back: whole, old, unfinished and damaged ones."""

from pathlib import Path

import pytest

from common.config import RunOptions
from common.errors import ConfigError
from common.experiment.records import load_record
from tests.common.experiment.planted import evaluation, plant

OPTIONS = RunOptions(steps=10, batch_size=8, mode="uniform", seed=3)


def test_a_record_holds_what_the_run_left(tmp_path: Path) -> None:
    plant(tmp_path / "run", OPTIONS, metrics=[evaluation(10, 0.9)], accuracy=0.9)
    (tmp_path / "run" / "agreement.jsonl").write_text('{"step": 1, "overlap": 0.5}\n')
    record = load_record(tmp_path / "run")
    assert (record.options.seed, record.options.mode, record.summary["accuracy"]) == (3, "uniform", 0.9)
    assert record.metrics[0]["accuracy/held_out"] == 0.9
    assert record.agreement == [{"step": 1, "overlap": 0.5}]
    assert record.environment["host"] == "planted"


def test_a_folder_without_agreement_and_environment_is_read_too(tmp_path: Path) -> None:
    plant(tmp_path, OPTIONS)
    (tmp_path / "environment.json").unlink()
    record = load_record(tmp_path)
    assert (record.agreement, record.environment, record.metrics) == ([], {}, [])


def test_a_last_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    plant(tmp_path, OPTIONS, metrics=[evaluation(10, 0.9)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "wal')
    assert [row["step"] for row in load_record(tmp_path).metrics] == [10]


def test_a_run_has_as_many_trainers_as_ranks_ended_it_whoever_started_them(tmp_path: Path) -> None:
    assert plant(tmp_path / "torchrun", OPTIONS, ranks=[{"rank": 0}, {"rank": 1}]).options.trainers == 2
    alone = OPTIONS.model_copy(update={"trainers": 3})
    assert plant(tmp_path / "resumed-by-one", alone).options.trainers == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("summary.json", None, "has not ended in order: there is no summary.json"),
        ("options.toml", None, "no run folder: it holds no options.toml"),
        ("summary.json", "[]", "summary.json must hold a table, got list"),
        ("summary.json", "{", "summary.json cannot be read"),
        ("metrics.jsonl", '{"step": 1}\nx\n', "metrics.jsonl, line 2: no JSON"),
        ("metrics.jsonl", "3\n", "metrics.jsonl, line 1: must be a table, got 3"),
        ("options.toml", "steps = 0", "options of another version of marginstream: steps"),
        ("options.toml", "steps =", "options.toml: not valid TOML"),
    ],
)
def test_a_folder_that_is_no_whole_record_is_refused_with_the_reason(
    tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    plant(tmp_path, OPTIONS)
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_record(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder; name a run folder"):
        load_record(tmp_path / "absent")
