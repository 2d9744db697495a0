"""A resident source gives the samples of the source that it was made from, and where they lie does not show."""

import numpy as np
import pytest
import torch

from common.config import AugmentOptions, DataOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader, Samples
from common.data.resident import ResidentSplit, resident
from common.data.source import AbsentSplit, Source, TensorSplit
from common.data.sources import open_source
from common.errors import ConfigError
from common.order import Order

EVERYTHING = AugmentOptions(crop_padding=4, flip=True, cutout=8, autoaugment="imagenet")
CUDA = torch.device("cuda")


def images(num: int = 5000) -> Source:
    inputs = torch.randint(0, 256, (num, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Source("images", TensorSplit(inputs, torch.arange(num) % 7), None, 7, mean=(0.5,) * 3, std=(0.25,) * 3)


def read(source: Source) -> Samples:
    augmentation = Augmentation(EVERYTHING, 3, source.sample)
    return SampleReader(source, augmentation, Order(len(source.train), 3, "candidates")).read(np.arange(100, 400))


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_a_resident_split_gives_what_its_split_gives(name: str) -> None:
    split = open_source(DataOptions(data=name)).train
    held, ids = ResidentSplit(split, torch.device("cpu")), torch.tensor([7, 0, len(split) - 1, 7])
    assert len(held) == len(split)
    for mine, its in zip(held.fetch(ids), split.fetch(ids), strict=True):
        assert torch.equal(mine, its)
        assert mine.dtype == its.dtype
    assert torch.equal(held.targets(ids), split.fetch(ids)[1])


def test_a_split_larger_than_a_piece_is_copied_whole() -> None:
    source, ids = images(), torch.arange(5000)
    held = ResidentSplit(source.train, torch.device("cpu"))
    assert torch.equal(held.fetch(ids)[0], source.train.fetch(ids)[0])


def test_nothing_is_copied_where_it_would_not_help() -> None:
    source = images(10)
    assert resident(source, "cpu", torch.device("meta")) is source
    assert resident(source, "device", torch.device("cpu")) is source
    absent = Source("absent", AbsentSplit(10), source.train, 7)
    assert resident(absent, "device", torch.device("meta")) is absent


def test_a_device_gets_the_inputs_and_the_source_stays_what_it_is() -> None:
    source = images(10)
    held = resident(source, "device", torch.device("meta"))
    inputs, targets = held.train.fetch(torch.tensor([3, 1]))
    assert inputs.device.type == "meta"
    assert targets.tolist() == [3, 1]
    assert (held.name, held.mean, held.num_classes) == (source.name, source.mean, source.num_classes)


@pytest.mark.gpu
def test_samples_read_and_augmented_on_the_gpu_are_byte_equal_to_those_of_the_cpu() -> None:
    source = images()
    on_cpu, on_gpu = read(source), read(resident(source, "device", CUDA))
    assert on_gpu.inputs.is_cuda
    assert torch.equal(on_gpu.inputs.cpu(), on_cpu.inputs)
    assert torch.equal(on_gpu.targets, on_cpu.targets)


@pytest.mark.gpu
def test_data_larger_than_the_memory_of_the_gpu_are_refused_before_they_are_read() -> None:
    class Huge(TensorSplit):
        def __len__(self) -> int:
            return 1 << 45

    split = Huge(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"--data-device device: .* GiB free; use --data-device cpu"):
        resident(Source("huge", split, None, 2), "device", CUDA)
