"""A run whose weights are no longer finite ends with a message of its own; it neither hangs nor claims success."""

import pytest

from tests.service.processes import Processes

DATA = ("--data", "synthetic", "--synthetic.num-samples", "512", "--batch-size", "16", "--candidates", "64")
DIVERGES = (*DATA, "--steps", "200", "--lr", "1e6", "--optim.momentum", "0.99", "--optim.weight-decay", "10")


@pytest.mark.parametrize("mode", ["uniform", "fresh"])
def test_a_diverged_run_ends_with_exit_code_5(mode: str, processes: Processes) -> None:
    trainer = processes.trainer("out", *DIVERGES, "--mode", mode)
    assert trainer.code() == 5
    assert "lower --lr or set --optim.clip-norm" in trainer.output


def test_a_diverged_stale_run_does_not_wait_for_scores_that_cannot_come(processes: Processes) -> None:
    run = processes.run("out", *DIVERGES, "--fallback", "wait", "--selection.warmup-fraction", "0.1")
    assert run.code() == 5
    assert "lower --lr or set --optim.clip-norm" in run.output
