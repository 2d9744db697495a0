"""People's own data, models, losses and loops."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.models import build_model
from tests.service.processes import Processes
from trainer.stream import SelectedBatches

TOKENS = '''
"""Does the first token come again? Sequences of token ids, and a model that embeds them."""

import torch
from torch import nn
from common.data.source import Source, TensorSplit

VOCABULARY, LENGTH, NUM = 32, 12, 1024

def open_sequences():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, VOCABULARY, (NUM, LENGTH), generator=generator)
    tokens[::2, 0] = 0  # half of them start with token 0
    targets = (tokens[:, 0] == 0).long()
    return Source("sequences", TensorSplit(tokens[256:], targets[256:]), TensorSplit(tokens[:256], targets[:256]), 2)

class Reader(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.mix = nn.Linear(16 * LENGTH, 32)
        self.head = nn.Linear(32, num_classes)

    def forward(self, tokens):
        return self.head(self.mix(self.embed(tokens).flatten(1)).relu())
'''

COUNTS = '''
"""Counts of 0 to 9, fitted by squared error: no classes, so no cross-entropy."""

import torch
from torch import nn
from common.data.source import Source, TensorSplit

def open_counts():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 2, (512, 9), generator=generator).float()
    targets = inputs.sum(dim=1).long()
    return Source("counts", TensorSplit(inputs, targets), TensorSplit(inputs[:64], targets[:64]), 10)

class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(9, 1)

    def forward(self, inputs):
        return self.head(inputs)[:, 0]

    def per_sample_loss(self, outputs, targets):
        return (outputs - targets.float()) ** 2
'''


@pytest.fixture
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person who works in the folder of their own modules; scorers inherit it."""
    (tmp_path / "own_tokens.py").write_text(TOKENS)
    (tmp_path / "own_counts.py").write_text(COUNTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("in_own_folder")
def test_token_ids_train_an_own_model_in_stale_mode(processes: Processes) -> None:
    own = ("--data", "own_tokens:open_sequences", "--model", "own_tokens:Reader")
    processes.service("out", *own, "--steps", "300", "--candidates", "64", "--lr", "0.05").succeeds()
    summary = processes.summary("out")
    assert summary["accuracy"] > 0.95
    assert summary["samples_scored"] > 0
    assert summary["staleness_max"] > 0


@pytest.mark.usefixtures("in_own_folder")
def test_an_own_loss_is_what_method_loss_selects_by(processes: Processes) -> None:
    """At a learning rate of nearly 0, with one epoch as a step's candidates, every step selects the same losses."""
    own = ["--data", "own_counts:open_counts", "--model", "own_counts:Counter", "--method", "loss", "--lr", "1e-12"]
    processes.service(
        "out", *own, "--candidates", "512", "--steps", "40", "--fallback", "wait", "--log.trace"
    ).succeeds()
    options = load_options(TrainerOptions, own)
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=options.seed)
    inputs, targets = source.train.fetch(torch.arange(512))
    with torch.no_grad():
        highest = ((model(inputs) - targets) ** 2).topk(options.batch_size).values
    selected = [line["losses"] for line in processes.trace("out") if line["origin"] == "stale"]
    assert len(selected) == 34
    for losses in selected:
        torch.testing.assert_close(torch.tensor(losses).sort(descending=True).values, highest)


@pytest.mark.usefixtures("in_own_folder")
def test_an_own_loop_of_twenty_lines_trains_on_what_a_local_scorer_selects() -> None:
    """The loop of the README, with a plain PyTorch model that knows nothing of this project."""
    names = ["--data", "own_tokens:open_sequences", "--model", "own_tokens:Reader", "--steps", "200"]
    options = load_options(TrainerOptions, [*names, "--candidates", "64", "--fallback", "wait"])
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with SelectedBatches(options, source, model, scorers=1) as batches:
        for batch in batches:
            losses = F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
            (batch.weights * losses).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            batches.step(losses)
    assert source.held_out is not None
    inputs, targets = source.held_out.fetch(torch.arange(len(source.held_out)))
    assert (model(inputs).argmax(dim=1) == targets).float().mean() > 0.95
    summary = batches.summary()
    assert summary["steps_by_origin"] == {"plain": 30, "stale": 170}
    assert summary["candidates_per_selected"] == 2.0
