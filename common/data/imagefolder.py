"""A folder of JPEG and PNG images, one sub-folder a class.

DIR/train/CLASS/... with DIR/val or DIR/test beside it, or DIR/CLASS/... alone, of which a keyed tenth is held out.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.config import DataOptions
from common.data import pixels
from common.data.cache import available_memory_bytes, cached_array
from common.data.source import Source
from common.errors import ConfigError, DataError
from common.order import held_out_mask

logger = logging.getLogger(__name__)

_MEMORY_FRACTION = 0.25  # scorer and trainer may hold a copy each, beside everything else
_ON_DISK_FROM_BYTES = 16 << 20  # below, decoding takes less than a second
_NUM_STATISTICS = 1000
_HELD_OUT_NAMES = ("val", "test")


def open_imagefolder(options: DataOptions) -> Source:
    """(3, H, W) uint8 images; ids by sorted relative path, classes by sorted folder name.

    With both val and test, val is held out. Hidden files are passed over, and files that are neither .jpg, .jpeg nor
    .png are ignored and counted. Mean and standard deviation are those of up to 1,000 training images.

    Raises:
        ConfigError: no folder is given, or images differ in size and no `image_size` is.
        DataError: the folder, a class or an image is missing or unreadable.
    """
    if options.data_root is None:
        raise ConfigError("--data imagefolder needs --data-root DIR, a folder with train/CLASS/*.jpg or CLASS/*.jpg")
    found = _find_images(options.data_root)
    if found.num_ignored:
        logger.info("ignored %d files in %s that are neither JPEG nor PNG", found.num_ignored, options.data_root)
    store = ImageStore(options.data_root, found.paths, options.image_size)
    train = ImageFolderSplit(store, np.flatnonzero(~found.held_out), found.targets)
    mean, std = _statistics(train)
    return Source(
        name="imagefolder",
        train=train,
        held_out=ImageFolderSplit(store, np.flatnonzero(found.held_out), found.targets),
        num_classes=len(found.class_names),
        mean=mean,
        std=std,
        decoder=pixels.decoder_name(),
        class_names=found.class_names,
    )


class ImageStore:
    """The images of a folder by row: decoded once where they fit in memory, else whenever they are asked for.

    Attributes:
        paths: relative to `root`.
        in_memory: whether they fitted, in a quarter of the memory that was free.
    """

    def __init__(self, root: Path, paths: list[str], image_size: int | None) -> None:
        self.root = root
        self.paths = paths
        self._image_size = image_size
        self._first_size = pixels.read_size(root / paths[0])
        self._num_pixels = self._first_size[0] * self._first_size[1]
        height, width = self._first_size if image_size is None else (image_size, image_size)
        self._shape = (3, height, width)
        num_bytes = len(paths) * 3 * height * width
        self.in_memory = num_bytes <= _MEMORY_FRACTION * available_memory_bytes()
        self._pixels: np.ndarray | None = None
        if self.in_memory and num_bytes < _ON_DISK_FROM_BYTES:
            self._pixels = self._decode_all()
        elif self.in_memory:
            self._pixels = cached_array(self._name(), self._state(), (len(paths), *self._shape), self._decode_all)
        else:
            logger.info("%s: %.1f GB of pixels are decoded when they are used", root, num_bytes / 1e9)
            cached_array(f"headers of {self._name()}", self._state(), (1,), self._check_headers)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64 -> (n, 3, H, W) uint8."""
        return self._decode(rows) if self._pixels is None else np.take(self._pixels, rows, axis=0)

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self._shape), dtype=np.uint8)

        def decode(index: int) -> None:
            path = self.paths[rows[index]]
            image = pixels.decode(self.root / path, self._image_size)
            if image.shape != self._shape:
                raise self._differs(path, (image.shape[1], image.shape[2]))
            out[index] = image

        pixels.for_each(decode, range(len(rows)), self._num_pixels)
        return out

    def _decode_all(self) -> np.ndarray:
        logger.info("decoding %d images of %s", len(self.paths), self.root)
        return self._decode(np.arange(len(self.paths)))

    def _check_headers(self) -> np.ndarray:
        """A damaged file or one of another size is found before training rather than in the middle of it."""
        logger.info("checking the headers of %d images of %s", len(self.paths), self.root)

        def check(index: int) -> None:
            size = pixels.read_size(self.root / self.paths[index])
            if self._image_size is None and size != self._first_size:
                raise self._differs(self.paths[index], size)

        pixels.for_each(check, range(len(self.paths)), self._num_pixels)
        return np.ones(1, dtype=np.uint8)

    def _differs(self, path: str, size: tuple[int, int]) -> ConfigError:
        (height, width), first = self._first_size, self.root / self.paths[0]
        return ConfigError(
            f"images differ in size: {first} is {width}×{height}, {self.root / path} is {size[1]}×{size[0]}; "
            "pass --image-size N to bring all to N×N pixels"
        )

    def _name(self) -> str:
        return f"{self.root.resolve()} at image_size={self._image_size} by {pixels.decoder_name()}"

    def _state(self) -> str:
        """Changes when a file is added, removed, replaced or written to, even if its size and mtime are kept."""
        digest = hashlib.blake2b()
        for path in self.paths:
            stat = (self.root / path).stat()
            digest.update(f"{path}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
        return digest.hexdigest()


class ImageFolderSplit:
    """Some rows of a store, in the order of their ids.

    Args:
        rows: (num,) int64, of the store.
        targets: class numbers of *all* rows of the store.
    """

    def __init__(self, store: ImageStore, rows: np.ndarray, targets: np.ndarray) -> None:
        self.store = store
        self._rows = rows
        self._targets = torch.from_numpy(targets[rows])

    def __len__(self) -> int:
        return len(self._rows)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        targets = self.targets(ids)  # first: it refuses ids that are out of range
        return torch.from_numpy(self.store.rows(self._rows[ids.numpy()])), targets

    def targets(self, ids: Tensor) -> Tensor:
        return self._targets.index_select(0, ids)

    def content_digest(self, ids: Tensor) -> bytes:
        """Of the relative paths and the files' bytes, in the order of `ids`."""
        digest = hashlib.blake2b(digest_size=16)
        for row in self._rows[ids.numpy()]:
            path = self.store.paths[row]
            content = hashlib.blake2b((self.store.root / path).read_bytes(), digest_size=16).digest()
            digest.update(path.encode() + b"\0" + content)
        return digest.digest()


@dataclass(frozen=True)
class _Found:
    paths: list[str]  # sorted, relative to the root, "/" between the parts
    targets: np.ndarray  # (num,) int64
    held_out: np.ndarray  # (num,) bool
    class_names: tuple[str, ...]
    num_ignored: int


def _find_images(root: Path) -> _Found:
    if not root.is_dir():
        raise DataError(f"--data-root {root}: there is no such folder")
    parts = [name for name in _HELD_OUT_NAMES if (root / name).is_dir()]
    has_train = (root / "train").is_dir()
    if parts and not has_train:
        raise DataError(f"{root} has {parts[0]}/ but no train/; --data-root is the folder that holds both")
    train_part = "train/" if has_train else ""
    class_names = _class_names(root / train_part)
    paths, num_ignored = _list_classes(root, train_part, class_names)
    num_train = len(paths)
    if has_train and parts:
        held_out_names = _class_names(root / parts[0])
        if unknown := sorted(set(held_out_names) - set(class_names)):
            raise DataError(f"{root / parts[0] / unknown[0]} is a class that {root / 'train'} does not have")
        more, more_ignored = _list_classes(root, f"{parts[0]}/", held_out_names)
        paths, num_ignored = paths + more, num_ignored + more_ignored
        held_out = np.arange(len(paths)) >= num_train
    else:
        held_out = held_out_mask(num_train, 0.1, "imagefolder")
    if held_out.all():
        raise DataError(f"{root} has {num_train} image in all; training needs some and held-out data needs one")
    number = {name: index for index, name in enumerate(class_names)}
    targets = np.array([number[path.split("/")[1 if has_train else 0]] for path in paths], dtype=np.int64)
    return _Found(paths, targets, held_out, class_names, num_ignored)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if len(names) < 2:
        raise DataError(f"{folder} needs two or more folders, one a class; it has {len(names)}")
    return names


def _list_classes(root: Path, part: str, class_names: tuple[str, ...]) -> tuple[list[str], int]:
    """Sorted paths relative to `root` of the images below its `part`, and how many other files were ignored."""
    paths: list[str] = []
    num_ignored = 0
    for name in class_names:
        images, ignored = _list_images(root, root / part / name)
        if not images:
            raise DataError(f"class folder {root / part / name} has no JPEG or PNG image")
        paths += images
        num_ignored += ignored
    return sorted(paths), num_ignored


def _list_images(root: Path, folder: Path) -> tuple[list[str], int]:
    images: list[str] = []
    num_ignored = 0
    for parent, _, names in os.walk(folder, followlinks=True):
        relative = Path(parent).relative_to(root).as_posix()
        for name in (name for name in names if not name.startswith(".")):
            if os.path.splitext(name)[1].lower() in pixels.SUFFIXES:
                images.append(f"{relative}/{name}")
            else:
                num_ignored += 1
    return images, num_ignored


def _statistics(train: ImageFolderSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in 0..1 units, of evenly spaced images: integers until the very end."""
    num = min(len(train), _NUM_STATISTICS)
    images, _ = train.fetch(torch.arange(num) * len(train) // num)
    count = images.numel() // 3
    total = images.sum(dim=(0, 2, 3), dtype=torch.int64).double() / count
    squares = images.to(torch.int32).square_().sum(dim=(0, 2, 3), dtype=torch.int64).double() / count
    std = (squares - total.square()).clamp(min=1).sqrt()  # a channel that is constant divides by one level
    return tuple(round(x / 255, 4) for x in total.tolist()), tuple(round(x / 255, 4) for x in std.tolist())
