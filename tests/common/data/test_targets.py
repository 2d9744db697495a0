"""Targets by id, without reading inputs where a split keeps the two apart."""

import pytest
import torch

from common.config import DataOptions
from common.data.pixels import ResizedSplit
from common.data.source import Source
from common.data.sources import open_source


class InputsCounted:
    """40 samples that count how often, and of how many ids, inputs were read."""

    def __init__(self):
        self.reads = []

    def __len__(self):
        return 40

    def fetch(self, ids):
        self.reads.append(len(ids))
        return torch.zeros(len(ids), 1, 4, 4, dtype=torch.uint8), ids % 5


class TargetsApart(InputsCounted):
    def targets(self, ids):
        return ids % 5


class TargetsAsTensor(InputsCounted):
    targets = torch.zeros(40)


@pytest.mark.parametrize("wrap", [lambda split: split, lambda split: ResizedSplit(split, 8)], ids=["plain", "resized"])
def test_targets_are_those_of_fetch_and_cost_no_inputs_where_the_split_keeps_them_apart(wrap):
    ids = torch.tensor([39, 3, 3, 0])
    for split, reads in ((TargetsApart(), []), (InputsCounted(), [4]), (TargetsAsTensor(), [4])):
        targets = Source("x", wrap(split), None, 5).targets(ids)
        assert (targets.tolist(), targets.dtype) == ([4, 3, 3, 0], torch.int64)
        assert split.reads == reads


def test_targets_of_many_samples_are_read_a_part_at_a_time():
    split = InputsCounted()
    ids = torch.arange(5000) % 40
    assert torch.equal(Source("x", split, None, 5).targets(ids), ids % 5)
    assert sum(split.reads) == 5000
    assert max(split.reads) <= 1024


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_targets_of_bundled_sources_are_those_of_fetch(name):
    source = open_source(DataOptions(data=name))
    ids = torch.arange(len(source.train))
    assert torch.equal(source.targets(ids), source.train.fetch(ids)[1])
