"""The checks of these tests find what they are there for."""

from typing import Any

import numpy as np
import pytest

from common.config import TrainerOptions, load_options
from common.order import Order
from tests.chaos.arena import CHUNKS
from tests.chaos.verdict import chunks_fed

NUM = 1000  # chunks of 64 cross its epochs
OPTIONS = load_options(TrainerOptions, ["--data", "synthetic", "--synthetic.num-samples", str(NUM), *CHUNKS])


def trace_of(*pairs: tuple[int, int]) -> list[dict[str, Any]]:
    """Steps that train on half of the samples of a pair of chunks."""
    order, lines = Order(NUM, OPTIONS.seed, "candidates"), []
    for step, chunks in enumerate(pairs):
        positions = np.concatenate([np.arange(64 * chunk, 64 * chunk + 64, 4) for chunk in chunks])
        lines.append({"step": step, "origin": "stale", "ids": order.ids(positions).tolist()})
    return lines


def test_a_run_of_many_epochs_in_which_every_chunk_feeds_one_step_is_in_order() -> None:
    fed = chunks_fed(trace_of(*((2 * step, 2 * step + 1) for step in range(100))), OPTIONS)
    assert fed == {chunk: chunk // 2 for chunk in range(200)}


def test_a_chunk_that_comes_back_epochs_later_is_in_order() -> None:
    pairs = [(2 * step + 1, 2 * step + 2) for step in range(100)]
    pairs[90] = (0, 181)
    assert chunks_fed(trace_of(*pairs), OPTIONS)[0] == 90


def test_a_chunk_that_feeds_two_steps_is_found() -> None:
    pairs = [(2 * step, 2 * step + 1) for step in range(100)]
    pairs[60] = (120, 117)
    with pytest.raises(AssertionError, match="chunk 117 fed step 58 and step 60"):
        chunks_fed(trace_of(*pairs), OPTIONS)


def test_a_batch_of_samples_from_everywhere_is_found() -> None:
    line = {"step": 0, "origin": "stale", "ids": list(range(0, NUM, 30))}
    with pytest.raises(AssertionError, match="more than 2 chunks in a batch after 0"):
        chunks_fed([line], OPTIONS)
