"""Augmented pixels are a function of (seed, epoch, id), and are those of slow per-sample code."""

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, autoaugment

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.autoaugment import OPERATIONS, AutoAugment
from common.data.source import SampleSpec
from common.errors import ConfigError
from common.order import integers_below, keyed_uint64

EVERYTHING = AugmentOptions(crop_padding=4, flip=True, cutout=8, autoaugment="cifar10")


def spec_of(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> SampleSpec:
    return SampleSpec(shape=shape, dtype=dtype, target_shape=(), num_samples=1000, num_classes=10)


def smooth_images(num: int, shape: tuple[int, int, int] = (3, 32, 32)) -> Tensor:
    """(num, *shape) uint8 with large and small structures and some saturation, from a local generator."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((num, shape[0], 4, 4), generator=generator)
    fine = torch.rand((num, *shape), generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear") * 1.2 - 0.1 + fine * 0.1
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def visits(num: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(num) // 100, np.arange(num) * 7 % 1000


def augmented(options: AugmentOptions, images: Tensor, seed: int = 0) -> Tensor:
    return Augmentation(options, seed, spec_of(tuple(images.shape[1:])))(images, *visits(len(images)))


@pytest.mark.parametrize("policy", ["none", "cifar10", "imagenet", "svhn"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 17, 30)])
def test_a_sample_augmented_alone_equals_the_same_sample_in_a_chunk(policy: str, shape: tuple[int, int, int]) -> None:
    options = AugmentOptions.model_validate({**EVERYTHING.model_dump(), "autoaugment": policy})
    images, (epochs, ids) = smooth_images(80, shape), visits(80)
    augmentation = Augmentation(options, 3, spec_of(shape))
    together = augmentation(images, epochs, ids)
    alone = [augmentation(images[i : i + 1], epochs[i : i + 1], ids[i : i + 1]) for i in range(80)]
    assert torch.equal(together, torch.cat(alone))
    shuffled = np.random.default_rng(0).permutation(80)
    assert torch.equal(together[shuffled], augmentation(images[shuffled], epochs[shuffled], ids[shuffled]))


def augmented_digest() -> str:
    return hashlib.sha256(augmented(EVERYTHING, smooth_images(400)).numpy().tobytes()).hexdigest()


def test_another_process_with_other_numbers_of_threads_makes_the_same_bytes(elsewhere: dict[str, Any]) -> None:
    assert elsewhere["augmented"] == [augmented_digest()] * 2


def test_seed_epoch_and_id_each_change_the_pixels_and_the_global_generator_does_not() -> None:
    image = smooth_images(1).expand(50, -1, -1, -1)
    augmentation, zeros, numbers = Augmentation(EVERYTHING, 0, spec_of((3, 32, 32))), np.zeros(50, int), np.arange(50)
    by_id, by_epoch = augmentation(image, zeros, numbers), augmentation(image, numbers, zeros)
    by_seed = Augmentation(EVERYTHING, 1, spec_of((3, 32, 32)))(image, zeros, numbers)
    assert len(by_id.flatten(1).unique(dim=0)) > 45
    assert len(by_epoch.flatten(1).unique(dim=0)) > 45
    assert not torch.equal(by_id, by_seed)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(augmentation(image, zeros, numbers), by_id)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_match_slow_code_and_every_shift_occurs(flip: bool) -> None:
    images = smooth_images(700, (3, 6, 7))
    seen = set()
    for before, after in zip(images, augmented(AugmentOptions(crop_padding=2, flip=flip), images), strict=True):
        padded = np.zeros((3, 10, 11), dtype=np.uint8)
        padded[:, 2:8, 2:9] = before
        crops = {}
        for down, right in itertools.product(range(5), range(5)):
            crop = padded[:, down : down + 6, right : right + 7]
            crops[crop.tobytes()] = (down, right, "as it is")
            if flip:
                crops[crop[:, :, ::-1].tobytes()] = (down, right, "mirrored")
        seen.add(crops[after.numpy().tobytes()])
    assert len(seen) == (50 if flip else 25)


def clipped(centre: int, side: int, size: int) -> tuple[int, ...]:
    return tuple(i for i in range(centre - side // 2, centre - side // 2 + side) if 0 <= i < size)


@pytest.mark.parametrize("side", [1, 4, 5, 40])
def test_cutout_blanks_squares_centred_at_every_pixel_and_nothing_else(side: int) -> None:
    images = torch.full((2000, 3, 6, 9), 200, dtype=torch.uint8)
    seen = set()
    for after in augmented(AugmentOptions(cutout=side), images).numpy():
        blank = after == 0
        rows, columns = np.flatnonzero(blank.any(axis=(0, 2))), np.flatnonzero(blank.any(axis=(0, 1)))
        assert blank[:, rows][:, :, columns].all()
        assert (after[~blank] == 200).all()
        seen.add((tuple(rows.tolist()), tuple(columns.tolist())))
    assert seen == {(clipped(y, side, 6), clipped(x, side, 9)) for y in range(6) for x in range(9)}


SPACE = autoaugment.AutoAugment()
INTERPOLATED = {"ShearX", "ShearY", "Rotate"}


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 24, 40)])
def test_operations_mean_what_torchvision_means(operation: str, shape: tuple[int, int, int]) -> None:
    """Within one grey level, for float32 blends truncate there; warps up to points midway between two pixels."""
    images = smooth_images(4, shape)
    magnitudes, signed = SPACE._augmentation_space(10, shape[1:])[operation]
    for level in range(-9 if signed else 0, 10):
        magnitude = float(magnitudes[abs(level)]) * (-1 if level < 0 else 1) if magnitudes.ndim else 0.0
        nearest = InterpolationMode.NEAREST
        expected = torch.stack([autoaugment._apply_op(i, operation, magnitude, nearest, None) for i in images])
        difference = (OPERATIONS[operation](images, level).int() - expected.int()).abs()
        if operation in INTERPOLATED:
            assert (difference > 0).float().mean() < 0.2, f"level {level}"
            assert level % 2 == 0 or difference.max() == 0, f"level {level} has no points midway"
        else:
            assert difference.max() <= 1, f"level {level}"


def test_operations_survive_flat_and_tiny_images() -> None:
    for images in (torch.full((2, 3, 6, 6), 90, dtype=torch.uint8), smooth_images(2, (1, 2, 2))):
        for name, operation in OPERATIONS.items():
            result = operation(images, 5)
            assert result.shape == images.shape, name
            assert result.dtype == torch.uint8, name
            if name in ("AutoContrast", "Equalize") and images.shape[-1] == 6:
                assert torch.equal(result, images), name


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "svhn"])
def test_autoaugment_applies_the_drawn_policies_of_the_table(name: str) -> None:
    images = smooth_images(100)
    draws = keyed_uint64(0, "test", np.arange(100)[:, None], np.arange(5))
    policies = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(name)).policies
    signed = {op for op, (_, signed) in SPACE._augmentation_space(10, (32, 32)).items() if signed}
    result = AutoAugment(name)(images, draws)
    for image, draw, after in zip(images, draws, result, strict=True):
        expected = image[None]
        policy = policies[int(integers_below(draw[:1], len(policies))[0])]
        for slot, (operation, probability, level) in enumerate(policy):
            sign = -1 if operation in signed and int(draw[3 + slot]) >> 63 else 1
            if int(draw[1 + slot]) / 2**64 < probability:
                expected = OPERATIONS[operation](expected, sign * (level or 0))
        assert torch.equal(after, expected[0])
    assert (result != images).flatten(1).any(1).float().mean() > 0.6


def test_switched_off_is_the_same_tensor_and_switched_on_leaves_its_input_alone() -> None:
    images = smooth_images(4)
    assert augmented(AugmentOptions(), images) is images
    copy = images.clone()
    augmented(EVERYTHING, images)
    assert torch.equal(images, copy)
    assert augmented(EVERYTHING, images[:0]).shape == (0, 3, 32, 32)


def test_description_names_what_is_on_in_order() -> None:
    assert Augmentation(AugmentOptions(), 0, spec_of((2,), torch.float32)).description == "none"
    expected = "crop_padding=4 flip autoaugment=cifar10 cutout=8"
    assert Augmentation(EVERYTHING, 0, spec_of((3, 32, 32))).description == expected


@pytest.mark.parametrize(("shape", "dtype"), [((2,), torch.float32), ((3, 8, 8), torch.float32), ((16,), torch.int64)])
def test_augmenting_what_is_no_image_is_refused_with_the_option_named(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with pytest.raises(ConfigError, match=r"augment\.flip needs uint8 images"):
        Augmentation(AugmentOptions(flip=True), 0, spec_of(shape, dtype))


def test_autoaugment_of_four_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or 3 channels, got 4"):
        Augmentation(AugmentOptions(autoaugment="svhn"), 0, spec_of((4, 8, 8)))
