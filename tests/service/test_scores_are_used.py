"""What is trained on must be what the scorer's scores say: red if the trainer ever ignores them.

One feature x and a last layer without bias: |z1 - z2| / ||w1 - w2|| = |x|, whatever the weights. One sample in eight
has a small |x|; a step's candidates are one epoch, of which it selects an eighth. So every step must select exactly
those samples, and a trainer that ignores the scores takes one in eight of them.
"""

from pathlib import Path

import pytest

from tests.service.processes import Processes, assert_balanced

NUM, EVERY = 256, 8
HARD = sorted(range(0, NUM, EVERY))

MODULE = f"""
import torch
from common.data.source import Source, TensorSplit

def open_lines():
    ids = torch.arange({NUM})
    targets = ids // {EVERY} % 2
    size = torch.where(ids % {EVERY} == 0, 0.01, 1.0) * (1 + ids / {NUM})
    split = TensorSplit((size * (2 * targets - 1)).float()[:, None], targets)
    return Source(name="lines", train=split, held_out=split, num_classes=2)

def make_model():
    return torch.nn.Linear(1, 2, bias=False)
"""

OWN = ("--data", "lines:open_lines", "--model", "lines:make_model", "--batch-size", str(NUM // EVERY))
FLAGS = (*OWN, "--candidates", str(NUM), "--chunk-size", "64", "--steps", "100", "--log.trace")


@pytest.fixture
def own_module(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(MODULE)


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize("transfer", ["reference", "payload"])
def test_a_stale_run_selects_exactly_the_samples_of_the_smallest_margin(transfer: str, processes: Processes) -> None:
    processes.service("out", *FLAGS, "--fallback", "wait", "--transfer", transfer).succeeds()
    trace = processes.trace("out")
    selected = [sorted(line["ids"]) for line in trace if line["origin"] == "stale"]
    assert len(selected) == 85
    assert [ids for ids in selected if ids != HARD] == []
    plain = [sample for line in trace if line["origin"] == "plain" for sample in line["ids"]]
    assert sum(sample % EVERY == 0 for sample in plain) < len(plain) / 4  # the warm-up draws from all of them
    assert_balanced(processes.summary("out"))


@pytest.mark.usefixtures("own_module")
def test_the_scores_are_the_scorers_and_not_the_trainers(processes: Processes) -> None:
    """With a scorer that sends seeded numbers for scores, those numbers decide: about one in eight is hard."""
    synthetic = ("--backend", "synthetic", "--synthetic-backend.chunk-s", "0")
    processes.service("out", *FLAGS, "--fallback", "wait", *synthetic).succeeds()
    selected = [line["ids"] for line in processes.trace("out") if line["origin"] == "stale"]
    share = sum(sample % EVERY == 0 for ids in selected for sample in ids) / sum(map(len, selected))
    assert 0.5 / EVERY < share < 2 / EVERY
    # A function of the position alone: within each epoch the same order of samples has other scores.
    assert len({tuple(sorted(ids)) for ids in selected}) > 1
