"""Who is given the port."""

from pathlib import Path

import pytest

from common.config import RunOptions, ScorerOptions, TrainerOptions, load_options
from common.errors import ConfigError


def test_a_run_gives_the_port_to_its_trainer_and_the_bound_to_all() -> None:
    run = load_options(RunOptions, ["--metrics-port", "9100", "--unhealthy-after-s", "60"])
    trainer = run.for_trainer(listen="ipc:///tmp/x/t", out=Path("out"))
    scorer = run.for_scorer(connect="ipc:///tmp/x/t")
    assert (trainer.metrics_port, scorer.metrics_port) == (9100, None)
    assert (trainer.unhealthy_after_s, scorer.unhealthy_after_s) == (60, 60)


def test_without_the_option_nobody_listens() -> None:
    assert TrainerOptions().metrics_port is None
    assert ScorerOptions(connect="ipc:///tmp/x/t").metrics_port is None


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match="--metrics-port"):
        load_options(TrainerOptions, ["--metrics-port", port])
