"""A run that is killed and resumed, again and again, is the run that nobody interrupted, bit for bit."""

import random
import signal

import pytest
import torch

from tests.service.processes import Process, Processes, assert_balanced

STEPS = 240
NUM_KILLS = 5
RUN = ("--data", "synthetic", "--candidates", "96", "--chunk-size", "96", "--max-staleness", "0", "--seed", "5",
       "--steps", str(STEPS), "--log.trace", "--log.log-every", "1", "--checkpoint.every", "7")  # fmt: skip
LOGGED = ("step", "loss/selected", "loss/plain", "lr", "accuracy/held_out", "samples_trained", "selection/mean_margin")
LOCKSTEP = ("--push-every", "1", "--fallback", "wait", "--service.silence-s", "2")


def kill_and_resume(trainer: str, processes: Processes, seed: int, *flags: str) -> None:
    """Kills the trainer once it has come to each of a few random steps, and has another go on. The first one is plain.

    A plain batch is ready when a state is saved, one of selected samples still waits for its weights.
    """
    draw = random.Random(seed)
    steps = [draw.randrange(8, 12), *sorted(draw.sample(range(14, STEPS - 40), NUM_KILLS - 1))]
    current = processes.trainer(trainer, *flags)
    for number, step in enumerate(steps):
        processes.reaches(trainer, step)
        current.send(signal.SIGKILL)
        assert current.code() == -signal.SIGKILL
        current = resumed(processes, trainer, number, *flags)
    current.succeeds()


def resumed(processes: Processes, out: str, number: int, *flags: str) -> Process:
    return processes.start(
        f"trainer-{out}-{number}", "-m", "trainer", "--out", out, "--resume", "--threads", "1", "--log.no-tensorboard",
        *flags,
    )  # fmt: skip


def assert_same_course(processes: Processes, resumed: str, uninterrupted: str) -> None:
    one, other = processes.trace(resumed), processes.trace(uninterrupted)
    assert [line["step"] for line in one] == list(range(STEPS))
    for key in ("ids", "origin", "losses"):
        differing = [line["step"] for line, same in zip(one, other, strict=True) if line[key] != same[key]]
        assert differing == [], f"{key} differ first at step {differing[0]}"
    models = [torch.load(processes.folder / out / "model.pt") for out in (resumed, uninterrupted)]
    assert [key for key, value in models[0].items() if not torch.equal(value, models[1][key])] == []
    for key in LOGGED:
        logged = [[row.get(key) for row in processes.metrics(out)] for out in (resumed, uninterrupted)]
        assert logged[0] == logged[1], key


DROPOUT = """
from torch import nn

def build(sample):
    return nn.Sequential(nn.Linear(2, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))
"""


def test_a_fresh_run_with_coins_queue_and_dropout_killed_at_random_steps_equals_the_uninterrupted_one(
    processes: Processes,
) -> None:
    (processes.folder / "dropout.py").write_text(DROPOUT)
    own = ("--model", "dropout:build", "--optimizer", "adamw", "--lr", "0.01", "--method", "selective-backprop")
    flags = (*RUN, "--mode", "fresh", *own)
    whole = processes.trainer("whole", *flags)
    kill_and_resume("torn", processes, 2, *flags)
    whole.succeeds()
    assert_same_course(processes, "torn", "whole")
    summaries = [processes.summary(out) for out in ("torn", "whole")]
    for figure in ("samples_scored", "samples_trained", "candidates_offered", "queue_expired", "accuracy"):
        assert summaries[0][figure] == summaries[1][figure], figure


@pytest.mark.slow
@pytest.mark.parametrize("method", ["selective-backprop", "gradient-norm"])
@pytest.mark.parametrize("seed", [11, 12])
def test_lockstep_runs_of_other_methods_and_seeds_equal_the_uninterrupted_one_too(
    method: str, seed: int, processes: Processes
) -> None:
    flags = (*RUN, *LOCKSTEP, "--method", method, "--transfer", "payload")
    whole = processes.service("whole", *flags)
    endpoint = processes.endpoint("torn")
    scorer = processes.scorer("scorer", endpoint, "--data", "synthetic")
    kill_and_resume("torn", processes, seed, *flags, "--listen", endpoint)
    scorer.succeeds()
    whole.succeeds()
    assert_same_course(processes, "torn", "whole")
    assert_balanced(processes.summary("torn"))


def test_a_lockstep_run_killed_at_random_steps_equals_the_uninterrupted_one(processes: Processes) -> None:
    whole = processes.service("whole", *RUN, *LOCKSTEP)
    endpoint = processes.endpoint("torn")
    scorer = processes.scorer("scorer", endpoint, "--data", "synthetic")
    kill_and_resume("torn", processes, 1, *RUN, *LOCKSTEP, "--listen", endpoint)
    scorer.succeeds()
    whole.succeeds()
    assert_same_course(processes, "torn", "whole")
    summary = processes.summary("torn")
    assert_balanced(summary)
    assert summary["leases"]["consumed"] == processes.summary("whole")["leases"]["consumed"]
    assert summary["generation"] == NUM_KILLS + 1
