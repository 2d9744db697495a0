"""Data sources by name, and people's own as module:callable."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from common.config import DataOptions
from common.data.noise import with_label_noise
from common.data.source import AbsentSplit, Source, targets_of
from common.errors import ConfigError
from common.imports import import_callable, is_callable_name

# Name -> (module, function); a module is imported when it is asked for.
_OPENERS = {
    "digits": ("common.data.digits", "open_digits"),
    "synthetic": ("common.data.synthetic", "open_synthetic"),
    "imagefolder": ("common.data.imagefolder", "open_imagefolder"),
    **dict.fromkeys(
        ("mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "pcam"),
        ("common.data.torchvision_sets", "open_torchvision_set"),
    ),
}
SOURCE_NAMES = tuple(_OPENERS)
INPUT_DTYPES = (torch.uint8, torch.float32, torch.int64)


def open_source(options: DataOptions) -> Source:
    """The source that `--data` names.

    Raises:
        ConfigError: the name is unknown, or an option does not fit the source (label noise on targets that are not one
            class for each sample, for one).
        DataError: data are missing or unreadable.
    """
    source = _open_own(options) if is_callable_name(options.data) else _open_known(options)
    return with_label_noise(source, options.label_noise) if options.label_noise else source


def _open_known(options: DataOptions) -> Source:
    if options.data not in _OPENERS:
        near = difflib.get_close_matches(options.data, SOURCE_NAMES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"--data {options.data}: {hint}known are {', '.join(SOURCE_NAMES)}, or module:callable")
    module, function = _OPENERS[options.data]
    opener: Callable[[DataOptions], Source] = getattr(import_module(module), function)
    source = opener(options)
    return (
        source if options.data == "imagefolder" or options.image_size is None else _resized(source, options.image_size)
    )


def _resized(source: Source, image_size: int) -> Source:
    from common.data.pixels import ResizedSplit, decoder_name

    if not source.sample.is_image:
        raise ConfigError(f"--image-size {image_size}: samples of --data {source.name} are not images")
    held_out = None if source.held_out is None else ResizedSplit(source.held_out, image_size)
    return replace(source, train=ResizedSplit(source.train, image_size), held_out=held_out, decoder=decoder_name())


def _open_own(options: DataOptions) -> Source:
    """Calls people's function, with the options if it takes an argument, and checks what it gives."""
    opener = import_callable(options.data, "--data")
    source = opener(options) if _accepts(opener, options) else opener()
    where = f"--data {options.data}"
    if not isinstance(source, Source):
        raise ConfigError(f"{where}: must return a common.data.source.Source, got {type(source).__name__}")
    if isinstance(source.train, AbsentSplit):
        if source.held_out is None:
            raise ConfigError(f"{where}: a source without readable training samples needs held-out ones")
        _check_split(source, source.held_out, f"{where}: held_out")
        return source
    train = _check_split(source, source.train, f"{where}: train")
    if source.held_out is not None:
        held_out = _check_split(source, source.held_out, f"{where}: held_out")
        for what, mine, theirs in zip(("inputs", "targets"), held_out, train, strict=True):
            if (mine.shape[1:], mine.dtype) != (theirs.shape[1:], theirs.dtype):
                raise ConfigError(f"{where}: held_out {what} are {_kind(mine)}, those of train {_kind(theirs)}")
    if source.mean is not None and not (source.sample.is_image and len(source.mean) == source.sample.shape[0]):
        raise ConfigError(
            f"{where}: mean and std have {len(source.mean)} channels; they go with uint8 images of as many, "
            f"but samples are {_kind(train[0])}"
        )
    return source


def _accepts(opener: Callable[..., Any], options: DataOptions) -> bool:
    try:
        inspect.signature(opener).bind(options)
    except (TypeError, ValueError):  # takes no argument, or (built-in) does not say
        return False
    return True


def _check_split(source: Source, split: Any, where: str) -> tuple[Tensor, Tensor]:
    """Fetches three samples, one of them twice: what is wrong with a split should show before training."""
    if not hasattr(split, "__len__") or not callable(getattr(split, "fetch", None)):
        raise ConfigError(f"{where} must have __len__ and fetch(ids), got {type(split).__name__}")
    if len(split) == 0:
        raise ConfigError(f"{where} has no samples")
    ids = torch.tensor([len(split) - 1, 0, len(split) - 1])
    fetched = split.fetch(ids)
    if not (isinstance(fetched, tuple) and len(fetched) == 2 and all(isinstance(part, Tensor) for part in fetched)):
        raise ConfigError(f"{where}: fetch must return two tensors (inputs, targets), got {type(fetched).__name__}")
    inputs, targets = fetched
    for what, tensor in (("inputs", inputs), ("targets", targets)):
        if tensor.ndim == 0 or len(tensor) != len(ids):
            raise ConfigError(
                f"{where}: fetch of {len(ids)} ids must give as many {what}, got shape {(*tensor.shape,)}"
            )
        if tensor.device.type != "cpu":
            raise ConfigError(f"{where}: fetch must give {what} on the CPU, got {tensor.device}")
        if not torch.equal(tensor[0], tensor[2]):
            raise ConfigError(f"{where}: fetch must be a function of the id; id {len(split) - 1} came twice, different")
    if inputs.dtype not in INPUT_DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in INPUT_DTYPES)
        raise ConfigError(f"{where}: inputs must be of {known}; got {inputs.dtype}: convert them in fetch")
    if targets.dtype != torch.int64:
        raise ConfigError(f"{where}: targets must be int64, got {targets.dtype}")
    if targets.numel() and not 0 <= int(targets.max()) < source.num_classes:
        raise ConfigError(f"{where}: target {int(targets.max())} is outside [0, num_classes = {source.num_classes})")
    if not torch.equal(targets_of(split, ids), targets):
        raise ConfigError(f"{where}: targets(ids) must give the targets that fetch(ids) gives")
    return inputs, targets


def _kind(tensor: Tensor) -> str:
    return f"{(*tensor.shape[1:],)} {str(tensor.dtype).removeprefix('torch.')}"
