"""`--fallback wait` with every kind of allowed options ends by itself: each run has a deadline.

The training loop does nothing but ask for the next batch, so it always stands still for scores: the hardest case. The
scorers are two processes that serve one endpoint after the other.
"""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.errors import ConfigError
from common.models import build_model
from tests.service.processes import assert_balanced, until
from trainer.stream import SelectedBatches

DEADLINE_S = 20
BATCH = 8
DATA = ("--data", "synthetic", "--synthetic.num-samples", "300")  # no multiple of a chunk: leases cross epochs
SERVE = """
import sys
from scorer.__main__ import main
for line in sys.stdin:
    print("code", main(line.split()), flush=True)
"""

PUSH_EVERY = (1, 2, 8)
CANDIDATES = (str(BATCH), str(4 * BATCH), "auto")
CHUNKS = (None, 2, BATCH, 2 * BATCH)  # None: the default
Case = tuple[int, int, str, int | None, str, int]


class Scorers:
    """Two processes, each a scorer wherever it is told to be one."""

    def __init__(self, folder: Path) -> None:
        self._outputs = [folder / f"scorer-{index}.out" for index in range(2)]
        self._processes = []
        for path in self._outputs:
            with path.open("wb") as output:
                self._processes.append(
                    subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=output, stderr=output)
                )

    def connect(self, number: int, endpoint: str, *flags: str) -> None:
        for process in self._processes[:number]:
            assert process.stdin is not None
            process.stdin.write(" ".join(("--connect", endpoint, *DATA, *flags)).encode() + b"\n")
            process.stdin.flush()

    def codes(self, index: int) -> list[str]:
        lines = self._outputs[index].read_text().split("\n")[:-1]  # the last one may not be whole yet
        return [line.removeprefix("code ") for line in lines if line.startswith("code ")]

    def next_code(self, index: int, before: int) -> str:
        """Waits for the exit code of the run after the first `before` ones."""
        return str(until(lambda: self.codes(index)[before:], f"scorer {index} to end")[0])

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorers]:
    both = Scorers(tmp_path_factory.mktemp("scorers"))
    yield both
    both.close()


def all_cases() -> list[Case]:
    """Every allowed combination: push_every, max_staleness, candidates, chunk size, transfer, number of scorers."""
    cases = []
    for push_every, candidates, chunk in itertools.product(PUSH_EVERY, CANDIDATES, CHUNKS):
        for max_staleness in (push_every - 1, 64):
            for transfer, number in itertools.product(("reference", "payload"), (1, 2)):
                case = (push_every, max_staleness, candidates, chunk, transfer, number)
                try:
                    options_of(case)
                except ConfigError:
                    continue  # B is no multiple of the chunk size, or smaller
                cases.append(case)
    return cases


def options_of(case: Case) -> TrainerOptions:
    push_every, max_staleness, candidates, chunk, transfer, _ = case
    flags = ["--push-every", push_every, "--max-staleness", max_staleness, "--candidates", candidates]
    flags += [] if chunk is None else ["--chunk-size", chunk]
    flags += ["--transfer", transfer, "--batch-size", BATCH, "--steps", 40, "--fallback", "wait"]
    # With and without a warm-up: scoring then begins before the first step that selects.
    flags += ["--selection.warmup-fraction", 0 if push_every == 1 else 0.25]
    flags += ["--service.start-wait-s", DEADLINE_S, "--service.wait-deadline-s", DEADLINE_S]
    return load_options(TrainerOptions, [*DATA, *map(str, flags)])


def run(case: Case, scorers: Scorers) -> dict[str, Any]:
    """The summary of a run of 40 steps that were not trained."""
    options = options_of(case)
    *_, transfer, number = case
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    losses = torch.zeros(options.batch_size)
    ended = [len(scorers.codes(index)) for index in range(number)]
    with SelectedBatches(options, source, model) as batches:
        assert batches.endpoint is not None
        synthetic = ("--backend", "synthetic", "--synthetic-backend.chunk-s", "0.0005")
        scorers.connect(number, batches.endpoint, *(synthetic if transfer == "reference" else ()))
        until(lambda: batches.curves()["scorers"] == number, f"{number} scorers to join", DEADLINE_S)
        for _ in batches:
            batches.step(losses)
        summary = batches.summary()
    for index, before in enumerate(ended):
        assert scorers.next_code(index, before) == "0"
    return summary


def assert_all_selected(case: Case, summary: dict[str, Any]) -> None:
    assert (summary["steps"], summary["selected_fraction"], summary["fallbacks"]) == (40, 1.0, 0), case
    assert summary["staleness_max"] <= case[1], case
    assert summary["short_batches"] == 0, case
    assert_balanced(summary)


def pairwise(cases: list[Case]) -> list[Case]:
    """Few cases that hold every pair of two options' values that occurs together."""

    def pairs(case: Case) -> set[tuple[Any, ...]]:
        values = [*case]
        values[1] = case[1] == case[0] - 1  # tight or not
        return {(i, values[i], j, values[j]) for i, j in itertools.combinations(range(len(values)), 2)}

    missing = set().union(*map(pairs, cases))
    chosen = []
    while missing:
        chosen.append(max(cases, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


@pytest.mark.parametrize("case", pairwise(all_cases()), ids=str)
def test_a_waiting_run_ends_by_itself(case: Case, scorers: Scorers) -> None:
    assert_all_selected(case, run(case, scorers))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_waiting_run_ends_by_itself_under_every_combination(scorers: Scorers) -> None:
    cases = all_cases()
    assert len(cases) > 100
    for case in cases:
        assert_all_selected(case, run(case, scorers))
