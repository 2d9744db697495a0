"""Which runs are one arm, and what arms are called."""

import json

import pytest

from common.errors import ConfigError
from common.experiment.report.gather import find_runs, grouped, names_of, notes_of, title_of
from tests.common.experiment.report import planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for number, (name, seed) in enumerate([("stale:64", 1), ("stale:64", 0), ("stale:8", 0), ("uniform", 0)]):
        planted.as_run_folder(planted.record(root / "deep" / str(number), name, seed, steps=100))
    return root


def test_runs_are_found_below_a_folder_and_each_counts_once(folder):
    found = find_runs([folder, folder / "deep" / "0"])
    assert [record.folder.name for record in found.records] == ["0", "1", "2", "3"]


def test_runs_that_differ_in_seed_alone_are_one_arm(folder):
    arms = grouped(find_runs([folder]).records)
    assert {name: [run.options.seed for run in runs] for name, runs in arms.items()} == {
        "uniform": [0],
        "stale:8": [0],
        "stale:64": [0, 1],
    }
    assert title_of(arms) == "mms on digits: uniform, stale:8, stale:64"
    assert any("different seeds" in note for note in notes_of(arms, []))


def test_a_title_counts_what_is_too_much_to_list(folder):
    (run, *_) = find_runs([folder]).records
    assert title_of({f"arm {number}": [run] for number in range(9)}) == "mms on digits: 9 arms"


def test_arms_are_named_by_what_tells_them_from_others_of_their_mode():
    plain = {"mode": "uniform", "data": "digits", "push_every": 8, "lr": 0.1}
    stale = plain | {"mode": "stale", "method": "mms"}
    arms = [plain, stale | {"lr": 0.2}, stale | {"push_every": 64}, stale | {"candidates": [1, 2]}]
    assert names_of(arms) == [
        "uniform",
        "stale:8,candidates=none,lr=0.2",
        "stale:64,candidates=none,lr=0.1",
        "stale:8,candidates=1+2,lr=0.1",
    ]
    assert names_of([stale]) == ["stale"]


def test_runs_of_different_data_make_no_report(folder):
    runs = find_runs([folder]).records
    other = runs[0].options.model_copy(update={"data": "mnist"})
    with pytest.raises(ConfigError, match=r"different data \(digits, mnist\)"):
        grouped([*runs, planted.RunRecord(folder, other, {}, [])])


def test_an_unfinished_run_is_left_out_and_said_so(folder, tmp_path):
    planted.as_run_folder(planted.record(tmp_path / "done", "fresh", 0, steps=100))
    planted.as_run_folder(planted.record(tmp_path / "killed", "fresh", 1, steps=100))
    (tmp_path / "killed" / "summary.json").unlink()
    planted.as_run_folder(planted.record(tmp_path / "stopped", "fresh", 2, steps=100))
    summary = json.loads((tmp_path / "stopped" / "summary.json").read_text())
    (tmp_path / "stopped" / "summary.json").write_text(json.dumps(summary | {"stopped_by": "SIGINT", "steps": 30}))
    planted.as_run_folder(planted.record(tmp_path / "pilots" / "fresh", "fresh", 0, steps=10))
    found = find_runs([tmp_path])
    assert [record.folder.name for record in found.records] == ["done"]
    notes = notes_of(grouped(found.records), found.unfinished)
    assert "killed has not run to its end" in notes[0]
    assert "stopped has not run to its end" in notes[1]
    named = find_runs([tmp_path / "stopped"])
    assert "was stopped at step 30 of " in notes_of(grouped(named.records), named.unfinished)[0]


def test_a_folder_without_runs_is_an_error_that_says_what_to_name(tmp_path):
    with pytest.raises(ConfigError, match="holds no run that ended in order"):
        find_runs([tmp_path])
    with pytest.raises(ConfigError, match="is no folder"):
        find_runs([tmp_path / "nowhere"])
