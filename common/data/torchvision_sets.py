"""Published sets through torchvision's loaders: found in a folder, or downloaded to it where there is a network.

mnist, fashion-mnist, cifar10, cifar100, svhn, pcam; held out is each set's own test part. The CIFAR archives are
pickles: torchvision unpickles a file only after its MD5 is the published one, so a foreign file never runs.
"""

import logging
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.config import DataOptions
from common.data.cache import cache_folder, exclusive
from common.data.source import Source, Split, TensorSplit
from common.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_CONNECT_S = 10.0  # per address and per silent read; torchvision sets no limit of its own


@dataclass(frozen=True)
class _Set:
    """One set: how its torchvision class names the parts, what it leaves in the folder, and its constants."""

    class_name: str
    train: dict[str, Any]
    test: dict[str, Any]
    files: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split: Callable[[Any], Split]


def open_torchvision_set(options: DataOptions) -> Source:
    """uint8 images: (1, 28, 28) of the MNIST family, (3, 32, 32) of CIFAR and SVHN, (3, 96, 96) of PCAM.

    Raises:
        DataError: the folder does not hold the set and it cannot be downloaded, or a file is damaged.
        ConfigError: pcam without h5py.
    """
    if options.data == "pcam":
        _check_h5py()
    chosen = _SETS[options.data]
    root = options.data_root or cache_folder() / "data"
    train, class_names = _load(options.data, chosen, chosen.train, root)
    test, _ = _load(options.data, chosen, chosen.test, root)
    return Source(
        name=options.data,
        train=train,
        held_out=test,
        num_classes=chosen.num_classes,
        mean=chosen.mean,
        std=chosen.std,
        class_names=class_names,
    )


def _load(name: str, chosen: _Set, part: dict[str, Any], root: Path) -> tuple[Split, tuple[str, ...]]:
    from torchvision import datasets  # seconds, which other sources need not pay

    def load(download: bool) -> tuple[Split, tuple[str, ...]]:
        with _quiet_unpickling():
            dataset = getattr(datasets, chosen.class_name)(root, **part, download=download)
        return chosen.split(dataset), tuple(getattr(dataset, "classes", ()))

    try:
        return load(download=False)
    except Exception as error:  # not there, not whole, or not readable: whatever it is, a download may mend it
        logger.info("%s is not in %s (%s): downloading it", name, root, error)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with exclusive(root / f".{name}.lock", f"{name} is being downloaded"), _bounded_waits():
            return load(download=True)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name}: {root} does not hold the data and downloading them failed ({reason}); pass a folder that has "
            f"{chosen.files} with --data-root FOLDER, or try again with a network"
        ) from error


@contextmanager
def _bounded_waits() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _quiet_unpickling() -> Iterator[None]:
    """The CIFAR archives were pickled by a numpy that wrote align=0, of which numpy 2.4 warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed as Python or NumPy boolean")
        yield


def _mnist_split(dataset: Any) -> Split:
    return TensorSplit(dataset.data.unsqueeze(1), dataset.targets)


def _cifar_split(dataset: Any) -> Split:
    images = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))  # torchvision turned it to (n, H, W, C)
    return TensorSplit(torch.from_numpy(images), torch.tensor(dataset.targets))


def _svhn_split(dataset: Any) -> Split:
    return TensorSplit(torch.from_numpy(np.ascontiguousarray(dataset.data)), torch.from_numpy(dataset.labels))


class PcamSplit:
    """Patches of one HDF5 file, of which only those asked for are read: a part is up to 7 GB.

    Args:
        images: path of a file whose "x" is (num, H, W, 3) uint8.
        targets: path of a file whose "y" is (num, 1, 1, 1), 0 or 1.
    """

    def __init__(self, images: Path, targets: Path) -> None:
        h5py = import_module("h5py")  # optional
        self._images = h5py.File(images, "r")["x"]
        with h5py.File(targets, "r") as file:
            self._targets = torch.from_numpy(file["y"][:].reshape(-1).astype(np.int64))
        if len(self._images) != len(self._targets):
            raise DataError(f"{images} has {len(self._images)} patches but {targets} has {len(self._targets)} labels")

    def __len__(self) -> int:
        return len(self._targets)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        targets = self.targets(ids)
        unique, inverse = np.unique(ids.numpy(), return_inverse=True)  # HDF5 reads increasing indices only
        patches = self._images[unique].transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(patches[inverse])), targets

    def targets(self, ids: Tensor) -> Tensor:
        return self._targets.index_select(0, ids)


def _pcam_split(dataset: Any) -> Split:
    folder, stem = Path(dataset.root) / "pcam", f"camelyonpatch_level_2_split_{dataset._split}"
    return PcamSplit(folder / f"{stem}_x.h5", folder / f"{stem}_y.h5")


def _check_h5py() -> None:
    try:
        import_module("h5py")
    except ImportError as error:
        raise ConfigError("--data pcam reads HDF5 files with h5py, which is missing: pip install h5py") from error


_TRAIN, _TEST = {"train": True}, {"train": False}
_SPLIT_TRAIN, _SPLIT_TEST = {"split": "train"}, {"split": "test"}
_SETS = {
    "mnist": _Set("MNIST", _TRAIN, _TEST, "MNIST/raw/*-ubyte", 10, (0.1307,), (0.3081,), _mnist_split),
    "fashion-mnist": _Set(
        "FashionMNIST", _TRAIN, _TEST, "FashionMNIST/raw/*-ubyte", 10, (0.2860,), (0.3530,), _mnist_split
    ),
    "cifar10": _Set(
        "CIFAR10",
        _TRAIN,
        _TEST,
        "cifar-10-batches-py/",
        10,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        _cifar_split,
    ),
    "cifar100": _Set(
        "CIFAR100",
        _TRAIN,
        _TEST,
        "cifar-100-python/",
        100,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        _cifar_split,
    ),
    "svhn": _Set(
        "SVHN",
        _SPLIT_TRAIN,
        _SPLIT_TEST,
        "train_32x32.mat and test_32x32.mat",
        10,
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
        _svhn_split,
    ),
    "pcam": _Set(
        "PCAM",
        _SPLIT_TRAIN,
        _SPLIT_TEST,
        "pcam/camelyonpatch_level_2_split_*.h5",
        2,
        (0.7008, 0.5384, 0.6916),
        (0.2350, 0.2774, 0.2129),
        _pcam_split,
    ),
}
