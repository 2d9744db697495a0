"""Options of the command that makes the table of irreducible losses."""

import pytest

from common.config import IrreducibleOptions, LearningOptions, TrainerOptions, load_options
from common.errors import ConfigError


def test_an_option_means_the_same_here_and_in_training() -> None:
    for name, field in LearningOptions.model_fields.items():
        theirs = TrainerOptions.model_fields[name]
        for what in ("annotation", "default", "description"):
            assert getattr(field, what) == getattr(theirs, what), name
        assert [repr(each) for each in field.metadata] == [repr(each) for each in theirs.metadata], name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--out runs/x", "--out must name a file that ends in .pt, got runs/x; pass --out FILE.pt"),
        ("--method mms", "--method is an option of marginstream run, not of marginstream irreducible"),
        ("--label-noise 1", "--label-noise must be less than 1, got 1"),
        (
            "--optim.nesterov --optimizer adam",
            "--optim.nesterov needs --optimizer sgd and --optim.momentum greater than 0",
        ),
    ],
)
def test_what_is_wrong_with_an_option_is_said(argv: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_options(IrreducibleOptions, argv.split(), prog="marginstream irreducible")
    assert str(caught.value) == message


def test_a_file_of_a_run_serves_too_but_its_run_folder_is_no_table(tmp_path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('data = "synthetic"\nmethod = "loss"\nsteps = 7\n')
    assert load_options(IrreducibleOptions, ["--config", str(config)]).steps == 7
    config.write_text('out = "runs/mine"\n')
    with pytest.raises(ConfigError, match=r"run.toml: out must name a file that ends in .pt, got runs/mine"):
        load_options(IrreducibleOptions, ["--config", str(config)])
