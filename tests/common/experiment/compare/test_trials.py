"""Which runs a comparison makes, which of them are complete, and whose folder it is."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from common.config import load_options
from common.config.compare import CompareFlags, CompareOptions
from common.errors import ConfigError
from common.experiment.compare.arms import read_arms
from common.experiment.compare.command import plan
from common.experiment.compare.trials import Trial, clear, pilot_of, plan_trials, record_of
from common.experiment.compare.workplace import claimed
from tests.common.experiment.planted import plant


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return plan_trials(read_arms(["uniform", "stale:8"], {"steps": 10, "batch_size": 8}), [0, 5], tmp_path)


def compare(*words: str) -> CompareOptions:
    return load_options(CompareFlags, words)


def test_arms_take_turns_seed_by_seed(trials: list[Trial], tmp_path: Path) -> None:
    assert [trial.name for trial in trials] == [
        "uniform, seed 0",
        "stale:8, seed 0",
        "uniform, seed 5",
        "stale:8, seed 5",
    ]
    assert trials[3].folder == tmp_path / "runs" / "stale-8" / "seed-5"
    assert [trial.options.seed for trial in trials] == [0, 0, 5, 5]


def test_a_complete_run_with_the_wanted_options_is_kept_whatever_its_device(trials: list[Trial]) -> None:
    trial = trials[0]
    assert record_of(trial) is None
    plant(trial.folder, trial.options.model_copy(update={"device": "cpu"}), accuracy=0.5)
    record = record_of(trial)
    assert record is not None
    assert record.summary["accuracy"] == 0.5


def test_a_run_that_was_stopped_or_had_other_options_or_did_not_fit_on_the_disk_is_not_complete(
    trials: list[Trial],
) -> None:
    plant(trials[0].folder, trials[0].options, stopped_by="SIGTERM")
    plant(trials[1].folder, trials[1].options.model_copy(update={"lr": 0.5}))
    plant(trials[2].folder, trials[2].options.model_copy(update={"seed": 6}))
    plant(trials[3].folder, trials[3].options)
    (trials[3].folder / "summary.json").write_text("{")
    assert [record_of(trial) for trial in trials] == [None] * 4
    shutil.rmtree(trials[0].folder)
    plant(trials[0].folder, trials[0].options, unwritten={"model.pt": "No space left on device"})
    assert record_of(trials[0]) is None
    clear(trials[0])
    assert not trials[0].folder.exists(), "it is to run again"


def test_only_a_run_folder_is_cleared(trials: list[Trial]) -> None:
    clear(trials[0])
    plant(trials[0].folder, trials[0].options)
    clear(trials[0])
    assert not trials[0].folder.exists()
    trials[1].folder.mkdir(parents=True)
    (trials[1].folder / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="is in the way of stale:8, seed 0: it is no run folder"):
        clear(trials[1])


def test_a_finished_run_with_other_options_is_never_removed(trials: list[Trial]) -> None:
    plant(trials[0].folder, trials[0].options.model_copy(update={"lr": 0.5}))
    with pytest.raises(ConfigError, match=r"holds a finished run with lr = 0\.5, and .* is to have"):
        clear(trials[0])
    assert (trials[0].folder / "summary.json").exists()


def test_a_pilot_is_short_and_has_a_folder_of_its_own(trials: list[Trial], tmp_path: Path) -> None:
    pilot = pilot_of(trials[1].arm, tmp_path, 150)
    assert (pilot.options.steps, pilot.options.seed, pilot.options.log.eval_every) == (150, 0, 0)
    assert pilot.folder == tmp_path / "pilots" / "stale-8" / "pilot"
    assert dataclasses.replace(pilot.arm, options=trials[1].arm.options) == trials[1].arm


def test_a_comparison_goes_on_in_its_folder_with_more_arms_seeds_and_targets(tmp_path: Path) -> None:
    with claimed(tmp_path / "c", compare("--arms", "uniform", "--seeds", "0", "--lr", "0.5")):
        pass
    with claimed(tmp_path / "c", compare("--arms", "uniform", "fresh", "--lr", "0.5", "--targets", "0.9")):
        pass
    again = compare("--config", str(tmp_path / "c" / "compare.toml"))
    assert (again.arms, again.given, again.out) == (("uniform", "fresh"), {"lr": 0.5}, tmp_path / "c")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--lr", "0.2"],
            "holds a comparison with lr 0.5, and now it is 0.2; give it the same options to go on with it, ",
        ),
        ([], "holds a comparison with lr 0.5, and now it is not given;"),
        (["--lr", "0.5", "--selection.beta", "2"], "with selection.beta not given, and now it is 2.0"),
        (["--lr", "0.5", "--pilot-steps", "9"], "with pilot_steps 150, and now it is 9"),
    ],
)
def test_another_comparison_is_not_mixed_into_the_folder(tmp_path: Path, words: list[str], message: str) -> None:
    with claimed(tmp_path, compare("--lr", "0.5")):
        pass
    with pytest.raises(ConfigError, match=message), claimed(tmp_path, compare(*words)):
        pass


def test_one_comparison_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with (
        claimed(tmp_path, compare()),
        pytest.raises(ConfigError, match="another marginstream compare is at work"),
        claimed(tmp_path, compare()),
    ):
        pass


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"holds thesis.tex, which is of no comparison"), claimed(tmp_path, compare()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_runs_side_by_side_are_not_all_pinned_to_the_same_cores() -> None:
    words = ("--threads", "1", "--device", "cpu", "--arms", "uniform", "stale")
    assert {arm.options.pin for arm in plan(compare(*words), words).arms} == {"auto"}
    together = plan(compare(*words, "--side-by-side", "2"), words)
    assert {arm.options.pin for arm in together.arms} == {"none"}
