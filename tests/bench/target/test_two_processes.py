"""Plain training in two processes: what each of them trains on."""

from pathlib import Path

import pytest
import torch

from common.config import RunOptions
from common.data.sources import open_source
from common.errors import ConfigError
from tests.bench.target.two_processes import PROCESSES, half_of, half_options


def test_the_halves_are_disjoint_and_hold_every_sample_but_an_odd_one() -> None:
    source = open_source(RunOptions(data="digits"))
    num = len(source.train)
    ids = torch.arange(num // PROCESSES)
    whole, _ = source.train.fetch(torch.arange(num - num % PROCESSES))
    for rank in range(PROCESSES):
        half = half_of(source, rank)
        assert len(half.train) == len(ids) == half.sample.num_samples
        torch.testing.assert_close(half.train.fetch(ids)[0], whole[rank::PROCESSES], rtol=0, atol=0)
        assert half.held_out is source.held_out


def test_each_process_trains_half_of_the_batch_on_one_thread(tmp_path: Path) -> None:
    options = RunOptions(data="digits", mode="uniform", batch_size=32, threads=2, device="cpu", lr=0.2)
    half = half_options(options, tmp_path)
    assert (half.batch_size, half.num_threads, half.out, half.lr) == (16, 1, tmp_path, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 33, "device": "cpu"}, "--batch-size must be even for 2 processes, got 33"),
        ({"device": "cuda"}, "in 2 processes is for the CPU, got --device cuda"),
    ],
)
def test_what_has_no_halves_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        half_options(RunOptions(data="digits", mode="uniform", **options), tmp_path)
