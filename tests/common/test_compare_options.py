"""Options of a comparison: its own, and those of the runs, which all arms share."""

from pathlib import Path

import pytest

from common.config import RunOptions, load_options
from common.config.compare import SET_BY_COMPARE, CompareFlags, CompareOptions
from common.errors import ConfigError


def load(*words: str) -> CompareOptions:
    return load_options(CompareFlags, words)


def test_options_of_runs_are_kept_as_they_were_given() -> None:
    options = load("--arms", "uniform", "stale:8", "--seeds", "3", "4", "--steps", "50", "--selection.beta", "2")
    assert (options.arms, options.seeds) == (("uniform", "stale:8"), (3, 4))
    assert options.given == {"steps": 50, "selection": {"beta": 2.0}}


def test_every_option_of_a_run_can_be_shared_but_those_that_the_comparison_sets() -> None:
    missing = set(RunOptions.model_fields) - set(CompareFlags.model_fields)
    assert missing == SET_BY_COMPARE - {"out"}


def test_a_file_serves_run_and_compare(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text('arms = ["fresh", "stale"]\nseeds = [1]\nmode = "fresh"\nseed = 7\nsteps = 30\n')
    options = load("--config", str(path), "--steps", "40")
    assert (options.arms, options.seeds, options.given) == (("fresh", "stale"), (1,), {"steps": 40})
    assert load_options(RunOptions, ["--config", str(path)]).seed == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms"], "--arms needs at least one value"),
        (["--seeds", "1", "1"], "--seeds names 1 twice; leave one out"),
        (["--seeds", "-1"], "--seeds must be at least 0"),
        (["--targets", "97"], r"--targets must be accuracies in \(0, 1\], got 97.0"),
        (["--steps", "0"], "--steps must be greater than 0, got 0"),
        (["--trainers", "2"], "--trainers is an option of marginstream run, not of marginstream compare"),
        (["--mode", "stale"], "--mode is an option of marginstream run, not of marginstream compare"),
        (["--budget-s", "3", "--budget-flops", "1e9"], "--budget-s contradicts --budget-flops"),
        (["--budget-s", "3", "--side-by-side", "2"], "--budget-s needs each run to have a device for itself"),
        (["--side-by-syde", "2"], "unknown option --side-by-syde; did you mean --side-by-side?"),
    ],
)
def test_a_wrong_option_is_refused_by_name(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(*words)


def test_runs_share_a_device_when_more_run_than_there_are() -> None:
    assert not load("--side-by-side", "1").shares_device
    assert load("--side-by-side", "2").shares_device
    assert load("--side-by-side", "3", "--devices", "cuda:0", "cuda:1").shares_device
    assert not load("--side-by-side", "2", "--devices", "cuda:0", "cuda:1").shares_device


def test_a_device_under_two_names_is_one_device() -> None:
    with pytest.raises(ConfigError, match="--devices names cuda:0 twice"):
        load("--side-by-side", "2", "--devices", "cuda", "cuda:0")
