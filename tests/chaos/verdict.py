"""What holds of every run, whatever was done to its scorers: no step is lost and no chunk is trained on twice."""

from collections import Counter
from functools import cache
from typing import Any

import numpy as np

from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.order import Order
from tests.service.processes import Processes, assert_balanced


def assert_nothing_lost(processes: Processes, out: str) -> Counter[str]:
    """Of a run that ended in order and wrote a trace. Returns its steps by origin.

    - every step was trained, once and in order;
    - a chunk that fed a step fed no other one, and no step got more of them than it takes;
    - every chunk before the last one fed a step, but for those that were dropped as too old or are still out;
    - no streamed score was older than allowed;
    - leased = consumed + expired + dropped + skipped + outstanding, and what was consumed was trained on.
    """
    options = load_options(TrainerOptions, ["--config", str(processes.folder / out / "options.toml")])
    summary, trace = processes.summary(out), processes.trace(out)
    assert [line["step"] for line in trace] == list(range(summary["steps"])), "a step was lost, or trained twice"
    assert "stopped_by" in summary or summary["steps"] == options.steps
    assert summary["staleness_max"] <= options.max_staleness
    assert_balanced(summary)
    fed = chunks_fed(trace, options)
    account = summary["leases"]
    given_up = account["dropped"] + account["skipped"] + account["outstanding"]
    missing = set(range(max(fed, default=0))) - set(fed)
    unseen = 1 + len(fed) // 1000  # chunks of which hardly a sample was selected
    assert len(missing) <= given_up + unseen, f"chunks {sorted(missing)[:8]} were lost, and only {given_up} given up"
    origins = Counter(str(line["origin"]) for line in trace)
    if options.candidates != "auto":
        ahead = account["consumed"] - origins["stale"] * options.max_candidates // options.resolved_chunk_size
        assert ahead == 0 or "stopped_by" in summary, f"{ahead} chunks were consumed and never trained on"
    return origins


def chunks_fed(trace: list[dict[str, Any]], options: TrainerOptions) -> dict[int, int]:
    """The step that each chunk fed, by the ids of the batches and their positions in the candidates' order.

    Fails if a chunk fed two steps.
    """
    per_step = options.max_candidates // options.resolved_chunk_size
    fed: dict[int, int] = {}
    newest = 0
    for line in trace:
        if line["origin"] == "stale":
            found = chunks_of(np.array(line["ids"]), newest, per_step, options)
            for chunk in found:
                step = fed.setdefault(chunk, line["step"])
                assert step == line["step"], f"chunk {chunk} fed step {step} and step {line['step']}"
            newest = max([newest, *found])
    return fed


def chunks_of(ids: np.ndarray, newest: int, per_step: int, options: TrainerOptions) -> list[int]:
    """Numbers of the chunks that a batch was selected from; those that few of its samples came from are left out.

    An id stands in every epoch once, so it names a chunk only together with the others of its batch.

    Args:
        ids: (b,) sample ids.
        newest: the newest chunk so far; most batches are less than an epoch away, but a chunk that a hung scorer held
            may be epochs behind.
        per_step: how many there are at most.
    """
    size, num = options.resolved_chunk_size, _num_samples(options.data, options.synthetic.num_samples)
    epoch = newest * size // num
    for epochs in (range(max(0, epoch - 1), epoch + 2), range(epoch + 2)):
        places = np.stack([one * num + _places(num, options.seed, one)[ids] for one in epochs])
        found, num_left = _most_voted(places // size, per_step)
        if num_left <= len(ids) // 4:
            return found
    raise AssertionError(f"samples of more than {per_step} chunks in a batch after {newest}")


def _most_voted(chunks: np.ndarray, num: int) -> tuple[list[int], int]:
    """Of (epochs, b) numbers, those that stand for many of the b samples, at most `num`; and how many b are left."""
    few, found = chunks.shape[1] // (4 * num), []
    for _ in range(num):
        if chunks.size:
            numbers, counts = np.unique(chunks, return_counts=True)
            best = counts.argmax()
            if counts[best] > few:
                found.append(int(numbers[best]))
            chunks = chunks[:, (chunks != numbers[best]).all(axis=0)]
    return found, chunks.shape[1]


@cache
def _num_samples(data: str, synthetic: int) -> int:
    return len(open_source(TrainerOptions(data="digits")).train) if "digits" in data else synthetic


@cache
def _places(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """(num_samples,) place in an epoch of the candidates' order, by sample id."""
    ids = Order(num_samples, seed, "candidates").ids(np.arange(num_samples) + epoch * num_samples)
    places = np.empty(num_samples, dtype=np.int64)
    places[ids] = np.arange(num_samples)
    return places
