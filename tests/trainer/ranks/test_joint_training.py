"""Ranks that train one model: the same steps as one rank would make, saved, stopped, resumed and ended together."""

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.order import Order
from tests.preloaded import Preloaded
from tests.ranks.trainers import ranks
from tests.service.processes import Processes

STEPS, STOP_AT = 200, 120
NUM_SAMPLES = 300
MODULE = """
import os, signal
from torch import nn

class Net(nn.Sequential):
    "Rank 1 is told to end, or dies, within a step that the environment names."

    def forward(self, inputs):
        self.calls = getattr(self, "calls", 0) + self.training
        if self.training and os.environ.get("RANK") == "1":
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self.calls == int(os.environ.get(number.name, 0)):
                    os.kill(os.getpid(), number)
        return super().forward(inputs)

def net(num_classes):
    return Net(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, num_classes))

def dropping_net(num_classes):
    return Net(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, num_classes))
"""
SHARED = (
    "--data", "synthetic", "--synthetic.num-samples", str(NUM_SAMPLES), "--log.trace",
    "--log.log-every", "10", "--log.eval-every", "0", "--device", "cpu",
)  # fmt: skip
UNIFORM = (*SHARED, "--steps", str(STEPS), "--model", "nets:net", "--mode", "uniform", "--checkpoint.every", "50")
FRESH = (
    *SHARED,
    "--steps",
    "60",
    "--model",
    "nets:dropping_net",
    "--mode",
    "fresh",
    "--batch-size",
    "8",
    "--candidates",
    "24",
)
TWO = ("--batch-size", "8")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[Processes]:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "nets.py").write_text(MODULE)
    with Processes(folder, preloaded) as started:
        yield started


@dataclass(frozen=True)
class Ended:
    """A run of some ranks."""

    folder: Path
    codes: list[int]
    outputs: list[str]

    @property
    def summary(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return read

    def trace(self, rank: int) -> list[dict[str, Any]]:
        name = f"trace-rank-{rank}.jsonl" if rank else "trace.jsonl"
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def model(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = torch.load(self.folder / "model.pt")
        return state

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").iterdir())

    def parameters(self) -> list[str]:
        return [own["parameters"] for own in self.summary["ranks"]]


def train(processes: Processes, out: str, *flags: str, size: int = 2, **environment: object) -> Ended:
    """All ranks, from their start to their end.

    Args:
        environment: of each of them.
    """
    told = {name: str(value) for name, value in environment.items()}
    started = ranks(processes, out, *flags, size=size, first=f"import os\nos.environ.update({told})\n")
    codes = [process.code() for process in started]
    return Ended(processes.folder / out, codes, [process.output for process in started])


@pytest.fixture(scope="module")
def two(processes: Processes) -> Ended:
    ended = train(processes, "two", *UNIFORM, *TWO)
    assert ended.codes == [0, 0], ended.outputs
    assert "Warning" not in "".join(ended.outputs)
    return ended


@pytest.fixture(scope="module")
def stopped(processes: Processes) -> Ended:
    """SIGTERM came to rank 1 alone, within its step 120."""
    return train(processes, "stopped", *UNIFORM, *TWO, SIGTERM=STOP_AT)


def copied(ended: Ended, processes: Processes, out: str) -> str:
    shutil.copytree(ended.folder, processes.folder / out)
    return out


def assert_same(one: Ended, other: Ended) -> None:
    """Bit by bit."""
    for rank in (0, 1):
        assert one.trace(rank) == other.trace(rank)
    models = [ended.model() for ended in (one, other)]
    assert [key for key, value in models[0].items() if not torch.equal(value, models[1][key])] == []


def test_two_ranks_make_the_steps_of_one_rank_with_twice_the_batch(processes: Processes, two: Ended) -> None:
    one = train(processes, "one", *UNIFORM, "--batch-size", "16", size=1)
    for alone, first, second in zip(one.trace(0), two.trace(0), two.trace(1), strict=True):
        assert alone["ids"] == first["ids"] + second["ids"]
        np.testing.assert_allclose(alone["losses"], first["losses"] + second["losses"], rtol=1e-3, atol=1e-4)
    for name, value in one.model().items():
        torch.testing.assert_close(two.model()[name], value, rtol=1e-3, atol=1e-4)
    first_rank, second_rank = two.parameters()
    assert first_rank == second_rank, "bit by bit"
    assert two.summary["samples_trained"] == one.summary["samples_trained"] == STEPS * 16
    assert abs(two.summary["accuracy"] - one.summary["accuracy"]) < 0.01


def test_rank_0_records_for_all_and_the_others_have_a_log_of_their_own(two: Ended) -> None:
    names = {path.name for path in two.folder.iterdir()}
    assert {"trainer.log", "trainer-rank-1.log", "metrics.jsonl", "model.pt", "summary.json"} <= names
    assert [one["rank"] for one in two.summary["ranks"]] == [0, 1]
    assert "by 2 ranks: 200 steps" in two.summary["words"]
    said = (two.folder / "trainer-rank-1.log").read_text()
    assert "step 200/200" in said
    assert "INFO rank 1 trainer.record: step 200/200" in two.outputs[1]


def test_a_signal_to_one_rank_ends_all_after_the_same_step_and_that_is_saved(stopped: Ended) -> None:
    assert stopped.codes == [128 + signal.SIGTERM] * 2, stopped.outputs
    assert (stopped.summary["steps"], stopped.summary["stopped_by"]) == (STOP_AT, "SIGTERM")
    assert [len(stopped.trace(rank)) for rank in (0, 1)] == [STOP_AT, STOP_AT]
    saved = [path.name for path in stopped.checkpoints]
    assert saved == ["step-100.pt", "step-100.rank-1.pt", "step-120.pt", "step-120.rank-1.pt"]


def test_a_group_that_is_started_again_goes_on_to_the_same_end(
    processes: Processes, two: Ended, stopped: Ended
) -> None:
    out = copied(stopped, processes, "restarted")
    again = train(processes, out, *UNIFORM, *TWO, TORCHELASTIC_RESTART_COUNT=1, TORCHELASTIC_MAX_RESTARTS=1)
    assert again.codes == [0, 0], again.outputs
    assert (again.summary["resumed_at_step"], again.summary["generation"]) == (STOP_AT, 2)
    assert_same(again, two)
    once_more = train(processes, out, *UNIFORM, *TWO, TORCHELASTIC_RESTART_COUNT=2, TORCHELASTIC_MAX_RESTARTS=2)
    assert once_more.codes == [0, 0], "what has ended is not to be done again"


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_of_ranks_goes_on_where_the_ranks_were_together(
    processes: Processes, stopped: Ended, size: int
) -> None:
    out = copied(stopped, processes, f"resumed-by-{size}")
    again = train(processes, out, *UNIFORM, *TWO, "--resume", size=size)
    assert again.codes == [0] * size, again.outputs
    assert (again.summary["steps"], again.summary["resumed_at_step"]) == (STEPS, STOP_AT)
    ids = [number for lines in next_steps(again, size) for number in lines]
    start = 2 * 8 * STOP_AT
    assert ids == Order(NUM_SAMPLES, 0, "plain").ids(np.arange(start, start + len(ids))).tolist()
    if size > 1:
        assert len(set(again.parameters())) == 1
    assert again.summary["samples_trained"] == 8 * (2 * STOP_AT + size * (STEPS - STOP_AT))


def next_steps(ended: Ended, size: int) -> list[list[int]]:
    """Ids of each step since the run went on, rank after rank."""
    traces = [ended.trace(rank)[STOP_AT - STEPS :] for rank in range(size)]
    return [[number for line in lines for number in line["ids"]] for lines in zip(*traces, strict=True)]


def test_selecting_ranks_are_resumed_bit_by_bit_with_what_differs_between_them(processes: Processes) -> None:
    """Dropout, statistics of BatchNorm, the ledger and the place in its order are each rank's own."""
    timed = ("--checkpoint.every-s", "0.05", "--checkpoint.keep", "1000")
    whole = train(processes, "fresh", *FRESH, *timed)
    assert whole.codes == [0, 0], whole.outputs
    saved = [
        {path.name.split(".")[0] for path in whole.checkpoints if ("rank" in path.name) == part} for part in (0, 1)
    ]
    assert saved[0] == saved[1], "what is due by rank 0's clock is saved by both, after the same steps"
    assert saved[0]
    broken = train(processes, "fresh-broken", *FRESH, SIGTERM=35)
    assert broken.codes == [143, 143], broken.outputs
    again = train(processes, "fresh-broken", *FRESH, "--resume")
    assert again.codes == [0, 0], again.outputs
    assert_same(again, whole)
    assert again.parameters()[0] == again.parameters()[1]
    selected = [line for line in whole.trace(1) if line["origin"] == "fresh"]
    assert {number % 2 for line in selected for number in line["ids"]} == {1}, "of its own half"
    ledger = np.load(whole.folder / "ledger.npz")
    assert ledger["seen"].sum() == whole.summary["candidates_offered"] == 2 * 24 * len(selected)
    assert len(ledger["seen"]) == len(ledger["selected"]) == NUM_SAMPLES


def test_a_rank_that_dies_ends_the_others_at_once(processes: Processes) -> None:
    ended = train(processes, "killed", *UNIFORM, *TWO, SIGKILL=STOP_AT)
    assert ended.codes == [7, -signal.SIGKILL], ended.outputs
    assert "error: rank 0 of 2: another rank has ended or is silent, see its log" in ended.outputs[0]
    saved = [path.name for path in ended.checkpoints]
    assert saved == ["step-100.pt", "step-100.rank-1.pt", "step-50.pt", "step-50.rank-1.pt"]


def test_a_folder_that_cannot_be_used_ends_all_ranks_and_is_said_once(processes: Processes, two: Ended) -> None:
    ended = train(processes, two.folder.name, *UNIFORM, *TWO)
    assert ended.codes == [2, 2]
    assert sum(output.count("error:") for output in ended.outputs) == 1
    assert "holds files already" in ended.outputs[0]


def test_what_only_one_rank_cannot_do_is_said_by_that_rank(processes: Processes) -> None:
    ended = train(processes, "port", *UNIFORM, *TWO, "--metrics-port", "65535")
    assert ended.codes == [2, 2]
    assert [output.count("error: --metrics-port 65535: rank 1") for output in ended.outputs] == [0, 1]
    assert not (processes.folder / "port").exists()
