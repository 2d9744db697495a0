"""What a data source is: samples of one fixed shape by id, and how they become a network's input.

n = samples asked for, C = channels, H, W = height and width.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.data.normal import Normal
from common.errors import DataError

_TARGETS_AT_A_TIME = 1024  # samples fetched for their targets alone: their inputs must fit in memory


class Split(Protocol):
    """Samples with the ids 0 .. len - 1, each of the same shape and dtype.

    A split may also have `targets(ids: Tensor) -> Tensor`, the targets of `fetch` without reading inputs; and one whose
    samples are decoded from stored bytes `content_digest(ids: Tensor) -> bytes`, a digest of those bytes before
    decoding: with it, different data and a different decoder are told apart.
    """

    def __len__(self) -> int: ...

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Samples by id, a function of the id alone.

        Args:
            ids: (n,) int64 on the CPU, in [0, len), in any order; repeats are allowed.

        Returns:
            inputs: (n, *shape) on the CPU; uint8 for images (C, H, W), float32 for features, int64 for tokens.
                (`common.data.resident` wraps a split in one whose inputs are on another device.)
            targets: (n, *target_shape) int64 on the CPU; () for a class.
        """
        ...


class LabelNoise(Protocol):
    """Training labels that were replaced on purpose, so that it is known which are wrong."""

    @property
    def description(self) -> str:
        """All that the noise follows from: two processes with equal descriptions have equal noise."""
        ...

    def is_noisy(self, ids: np.ndarray) -> np.ndarray:
        """Whether the label was replaced by a wrong one: (n,) int64 ids of training samples -> (n,) bool."""
        ...


@dataclass(frozen=True)
class SampleSpec:
    """What one sample looks like; a model is built to fit it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    target_shape: tuple[int, ...]
    num_samples: int
    num_classes: int

    @property
    def is_image(self) -> bool:
        """uint8 (C, H, W): what augmentations and per-channel normalisation apply to."""
        return self.dtype == torch.uint8 and len(self.shape) == 3


@dataclass(frozen=True)
class Source:
    """Training samples, held-out samples and their normalisation, under one name.

    Attributes:
        num_classes: targets are in [0, num_classes).
        mean: per channel in 0..1 units, for uint8 images only; None leaves them at 0..1.
        std: likewise, > 0.
        decoder: what turned stored bytes into tensors, such as "pillow 11.1"; "" where nothing is decoded. Two
            processes with different decoders may see different pixels in the same files.
        class_names: by class number where they are known, else empty.
        noise: what replaced some of the training labels that `train` gives; None where nothing did.
    """

    name: str
    train: Split
    held_out: Split | None
    num_classes: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    decoder: str = ""
    class_names: tuple[str, ...] = ()
    noise: LabelNoise | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"source {self.name}: mean and std go together, got mean={self.mean}, std={self.std}")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std):
                raise ValueError(f"source {self.name}: {len(self.mean)} means but {len(self.std)} standard deviations")
            if min(self.std) <= 0:
                raise ValueError(f"source {self.name}: std must be > 0 in every channel, got {self.std}")

    @cached_property
    def sample(self) -> SampleSpec:
        """Shape and dtype, by looking at training sample 0, or at a held-out one where training samples are absent."""
        split = self.held_out if isinstance(self.train, AbsentSplit) and self.held_out is not None else self.train
        inputs, targets = split.fetch(torch.zeros(1, dtype=torch.int64))
        return SampleSpec(
            shape=tuple(inputs.shape[1:]),
            dtype=inputs.dtype,
            target_shape=tuple(targets.shape[1:]),
            num_samples=len(self.train),
            num_classes=self.num_classes,
        )

    def targets(self, ids: Tensor) -> Tensor:
        """Targets of training samples; cheap where the split keeps them apart from its inputs, else samples are read.

        Args:
            ids: (n,) int64 on the CPU, in [0, num_samples).

        Returns:
            (n, *target_shape) int64 on the CPU.

        Raises:
            DataError: this process cannot read the training data.
        """
        return targets_of(self.train, ids)

    def is_noisy(self, ids: np.ndarray) -> np.ndarray | None:
        """Whether training labels were replaced by wrong ones: (n,) int64 ids -> (n,) bool.

        None where none were replaced: which labels were wrong from the beginning, nobody knows.
        """
        return None if self.noise is None else self.noise.is_noisy(np.asarray(ids, dtype=np.int64))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Fetched (and augmented) inputs as the network takes them, on the device they are on.

        uint8 becomes float32 in 0..1, and images are normalised where mean and std are known; floating point becomes
        float32; other integers (tokens) stay as they are.
        """
        if inputs.is_floating_point():
            return inputs.to(torch.float32)
        if inputs.dtype != torch.uint8:
            return inputs
        if self.mean is None or self.std is None:
            return inputs.to(torch.float32).mul_(1 / 255)
        return _normal(self.mean, self.std, inputs.device).prepare(inputs)

    def normal(self, device: torch.device) -> Normal | None:
        """What `prepare` makes of uint8 images that are normalised; None where there are none."""
        if not self.sample.is_image or self.mean is None or self.std is None:
            return None
        return _normal(self.mean, self.std, device)


def targets_of(split: Split, ids: Tensor) -> Tensor:
    """Targets of any split by its own `targets`, else out of `fetch`: (n,) int64 -> (n, *target_shape) int64."""
    own = getattr(split, "targets", None)
    if callable(own):  # people's splits may well keep a tensor under this name
        targets: Tensor = own(ids)
        return targets
    return torch.cat([split.fetch(part)[1] for part in ids.split(_TARGETS_AT_A_TIME)])


class AbsentSplit:
    """Training samples that this process cannot read: scorers ship them as payload.

    For a trainer without the data: its source is `Source(train=AbsentSplit(num_samples), held_out=..., ...)`, and it
    runs with `--transfer payload`. The number must be that of the scorers' source.
    """

    def __init__(self, num_samples: int) -> None:
        if num_samples <= 0:
            raise ValueError(f"num_samples must be greater than 0, got {num_samples}")
        self._num_samples = num_samples

    def __len__(self) -> int:
        return self._num_samples

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        raise DataError(
            "this process cannot read the training data (its source has an AbsentSplit): scorers read them, and the "
            "trainer gets them with --mode stale --transfer payload"
        )


@lru_cache(maxsize=16)
def _normal(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Normal:
    """Kept: a copy to a GPU waits for it."""
    with torch.inference_mode(False):  # the cache outlives the caller's mode
        mean_C = torch.tensor(mean, dtype=torch.float64)
        std_C = torch.tensor(std, dtype=torch.float64)
        scale = (1 / (255 * std_C)).to(device, torch.float32).view(-1, 1, 1)
        shift = (-mean_C / std_C).to(device, torch.float32).view(-1, 1, 1)
    return Normal(scale, shift)


class TensorSplit:
    """A split whose samples are in memory.

    Args:
        inputs: (num, *shape) on the CPU.
        targets: (num, *target_shape), of an integer dtype; kept as int64.

    Raises:
        ValueError: lengths differ, there are no samples, or targets are not integers.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"inputs and targets must have one length, got {len(inputs)} and {len(targets)}")
        if len(inputs) == 0:
            raise ValueError("a split needs at least one sample, got none")
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise ValueError(f"targets must be integers, got {targets.dtype}")
        self._inputs = inputs
        self._targets = targets.to(torch.int64)

    def __len__(self) -> int:
        return len(self._inputs)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self._inputs.index_select(0, ids), self.targets(ids)

    def targets(self, ids: Tensor) -> Tensor:
        return self._targets.index_select(0, ids)
