"""Reading by position gives the right sample, augmented for its epoch."""

import numpy as np
import pytest
import torch

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.source import Source, TensorSplit
from common.order import Order
from common.shard import Shard


def image_source(num: int) -> Source:
    images = torch.arange(num * 3 * 64).remainder(251).to(torch.uint8).view(num, 3, 8, 8)
    return Source("test", TensorSplit(images, torch.arange(num) % 7), None, num_classes=7)


def reader(num: int = 50, **options: bool | int) -> SampleReader:
    source = image_source(num)
    augmentation = Augmentation(AugmentOptions.model_validate(options), 0, source.sample)
    return SampleReader(source, augmentation, Order(num, 0, "candidates"))


def test_read_gives_the_samples_at_the_positions() -> None:
    source, positions = image_source(50), np.arange(30, 130)
    samples = reader().read(positions)
    np.testing.assert_array_equal(samples.ids, Order(50, 0, "candidates").ids(positions))
    inputs, targets = source.train.fetch(torch.from_numpy(samples.ids))
    assert torch.equal(samples.inputs, inputs)
    assert torch.equal(samples.targets, targets)
    assert len(samples) == 100


def test_a_sample_is_augmented_for_the_epoch_of_its_position() -> None:
    source, augmented = image_source(50), reader(flip=True, crop_padding=2)
    positions = np.arange(40, 60)
    samples = augmented.read(positions)
    plain = source.train.fetch(torch.from_numpy(samples.ids))[0]
    expected = augmented.augmentation(plain, positions // 50, samples.ids)
    assert torch.equal(samples.inputs, expected)
    assert not torch.equal(samples.inputs, plain)


def test_each_row_is_a_function_of_its_own_position() -> None:
    augmented = reader(flip=True, crop_padding=2, cutout=3)
    positions = np.array([170, 3, 52, 3, 99])
    samples = augmented.read(positions)
    for row, position in enumerate(positions):
        alone = augmented.read(np.array([position]))
        assert torch.equal(alone.inputs[0], samples.inputs[row])
        assert alone.targets[0] == samples.targets[row]


def test_an_empty_read_has_the_shape_of_the_samples() -> None:
    samples = reader(flip=True).read(np.array([], dtype=np.int64))
    assert samples.inputs.shape == (0, 3, 8, 8)
    assert len(samples) == 0


def test_an_order_of_another_length_is_refused() -> None:
    source = image_source(50)
    with pytest.raises(ValueError, match="over 51 samples, but test has 50"):
        SampleReader(source, Augmentation(AugmentOptions(), 0, source.sample), Order(51, 0, "candidates"))


def test_a_shard_is_read_by_local_ids_and_gives_the_samples_that_it_owns() -> None:
    """The bytes of a visit do not depend on who reads it."""
    whole, shard = reader(flip=True, crop_padding=2, cutout=3), Shard(1, 3)
    order = shard.candidates(50, seed=0)
    sharded = SampleReader(whole.source, whole.augmentation, order, shard)
    positions = np.arange(10, 40)  # over the end of an epoch of 17
    samples = sharded.read(positions)
    assert samples.ids.tolist() == (order.ids(positions) * 3 + 1).tolist()
    expected = whole.fetch(samples.ids, order.epochs(positions))
    assert torch.equal(samples.inputs, expected.inputs)
    assert torch.equal(samples.targets, expected.targets)


def test_an_order_of_all_samples_is_not_that_of_a_shard() -> None:
    whole = reader()
    with pytest.raises(ValueError, match="over 50 samples, but test of rank 1 of 3 has 17"):
        SampleReader(whole.source, whole.augmentation, whole.order, Shard(1, 3))


def test_runs_are_read_together_as_each_by_itself_and_parts_of_samples_are_views() -> None:
    augmented = reader(flip=True, crop_padding=2)
    runs = [range(40, 60), np.array([3, 1, 99]), range(7, 8)]
    together = augmented.read_runs(runs)
    parts = together.split([len(run) for run in runs])
    for run, part in zip(runs, parts, strict=True):
        alone = augmented.read(np.asarray(run))
        np.testing.assert_array_equal(part.ids, alone.ids)
        assert torch.equal(part.inputs, alone.inputs)
        assert torch.equal(part.targets, alone.targets)
        assert part.inputs.untyped_storage().data_ptr() == together.inputs.untyped_storage().data_ptr()
