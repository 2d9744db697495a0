"""What a run that requires a scorer does without one."""

import pytest

from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.errors import NoScorer
from common.models import build_model
from tests.service.processes import Processes
from trainer.stream import SelectedBatches

REQUIRES = ("--mode", "stale", "--data", "synthetic", "--service.start-wait-s", "0", "--steps", "1000000",
            "--service.require-scorer-s", "0.2", "--service.wait-deadline-s", "10")  # fmt: skip


def train(batches: SelectedBatches) -> None:
    for _ in batches:
        batches.step()


@pytest.mark.parametrize("fallback", ["uniform", "wait"])
def test_a_run_that_requires_a_scorer_ends_between_two_steps_and_may_be_saved_there(fallback: str) -> None:
    flags = ("--fallback", fallback, "--selection.warmup-fraction", "0")
    options = load_options(TrainerOptions, [*REQUIRES, *flags])
    source = open_source(options)
    with SelectedBatches(options, source, build_model(options.model, source.sample, seed=0)) as batches:
        with pytest.raises(NoScorer, match=r"require-scorer-s is 0\.2"):
            train(batches)
        assert batches.state_dict()["step"] == batches.completed
    assert (batches.completed > 0) == (fallback == "uniform")
    assert batches.figures.degraded_steps == batches.completed


def test_a_trainer_that_misses_its_scorers_saves_and_ends_with_an_exit_code_of_its_own(processes: Processes) -> None:
    trainer = processes.trainer("alone", *REQUIRES)
    assert trainer.code() == 6
    assert "error: no scorer has served this run for " in trainer.output
    assert [path.suffix for path in (processes.folder / "alone" / "checkpoints").iterdir()] == [".pt"]
