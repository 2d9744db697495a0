"""A difference in data, decoder or augmentation shows in its own part of the fingerprint, and first there."""

import dataclasses

import pytest
import torch
from torch import Tensor

from common.config import AugmentOptions
from common.data.fingerprint import data_fingerprint
from common.data.source import Source, TensorSplit

FLIP = AugmentOptions(flip=True)


class StoredSplit(TensorSplit):
    """Tensors that stand for decoded files: `stored` are the files' bytes."""

    def __init__(self, inputs: Tensor, targets: Tensor, stored: bytes) -> None:
        super().__init__(inputs, targets)
        self.stored = stored

    def content_digest(self, ids: Tensor) -> bytes:
        return self.stored


def images(num: int = 60) -> Tensor:
    return torch.arange(num * 3 * 64).remainder(251).to(torch.uint8).view(num, 3, 8, 8)


def source(num: int = 60, name: str = "test", decoder: str = "") -> Source:
    return Source(name, TensorSplit(images(num), torch.arange(num) % 7), None, num_classes=7, decoder=decoder)


def stored_source(pixels: Tensor, stored: bytes, decoder: str = "pillow 11.1") -> Source:
    split = StoredSplit(pixels, torch.arange(len(pixels)) % 7, stored)
    return Source("test", split, None, num_classes=7, decoder=decoder)


def first_difference(one: dict[str, str], other: dict[str, str]) -> str | None:
    return next((field for field in one if one[field] != other[field]), None)


def test_equal_data_have_equal_fingerprints_in_the_order_of_comparison() -> None:
    fingerprint = data_fingerprint(source(), FLIP)
    assert fingerprint == data_fingerprint(source(name="another name"), FLIP)
    assert list(fingerprint) == ["data", "decoder", "augmentation"]
    assert all(len(digest) == 32 for digest in fingerprint.values())


@pytest.mark.parametrize(
    "other",
    [
        source(num=61),
        dataclasses.replace(source(), num_classes=8),
        dataclasses.replace(source(), train=TensorSplit(images(), torch.arange(60) % 6)),
        dataclasses.replace(source(), train=TensorSplit(images() + 1, torch.arange(60) % 7)),
        dataclasses.replace(source(), train=TensorSplit(images().view(60, 3, 4, 16), torch.arange(60) % 7)),
        dataclasses.replace(source(), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
    ],
    ids=["number of samples", "classes", "labels", "pixels", "shape", "normalisation"],
)
def test_other_data_differ_in_data(other: Source) -> None:
    assert first_difference(data_fingerprint(source(), FLIP), data_fingerprint(other, FLIP)) == "data"


def test_equal_files_decoded_differently_differ_in_the_decoder() -> None:
    here = data_fingerprint(stored_source(images(), b"files"), FLIP)
    other_version = data_fingerprint(stored_source(images(), b"files", decoder="pillow 12.0"), FLIP)
    other_pixels = data_fingerprint(stored_source(images() ^ 1, b"files"), FLIP)
    other_files = data_fingerprint(stored_source(images(), b"other files"), FLIP)
    assert first_difference(here, other_version) == "decoder"
    assert first_difference(here, other_pixels) == "decoder"
    assert first_difference(here, other_files) == "data"


@pytest.mark.parametrize("options", [AugmentOptions(), AugmentOptions(flip=True, cutout=2)])
def test_other_options_differ_in_augmentation(options: AugmentOptions) -> None:
    difference = first_difference(data_fingerprint(source(), FLIP), data_fingerprint(source(), options))
    assert difference == "augmentation"


def test_the_same_options_making_other_pixels_differ_in_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    here = data_fingerprint(source(), FLIP)
    monkeypatch.setattr("common.data.augment._crop_and_flip", lambda images, *arguments: images.flip(-1))
    assert first_difference(here, data_fingerprint(source(), FLIP)) == "augmentation"


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_features_and_tokens_and_few_samples_have_fingerprints(dtype: torch.dtype) -> None:
    few = Source("few", TensorSplit(torch.arange(6).view(3, 2).to(dtype), torch.arange(3)), None, num_classes=3)
    assert data_fingerprint(few, AugmentOptions()) == data_fingerprint(few, AugmentOptions())
