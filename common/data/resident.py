"""A data set whose inputs lie in a device's memory: fetched and augmented there, with no copies from the host."""

import logging
import math
from dataclasses import replace

import torch
from torch import Tensor

from common.data.source import AbsentSplit, Source, Split
from common.errors import ConfigError

log = logging.getLogger(__name__)

_SAMPLES_AT_A_TIME = 4096  # fetched from the split while it is copied over


def resident(source: Source, place: str, device: torch.device) -> Source:
    """The source to read from: its training inputs on `device` if `place` says so, else as it is.

    On the CPU nothing changes: what a source keeps in memory is there already. Looking at the data (digests, pictures)
    goes on with the source as it was, whose tensors are on the CPU.

    Args:
        place: `--data-device`: "cpu" or "device".
        device: where this process computes.

    Raises:
        ConfigError: the inputs do not fit into what is free of the device's memory.
    """
    if place == "cpu" or device.type == "cpu" or isinstance(source.train, AbsentSplit):
        return source
    sample = source.sample
    num_bytes = sample.num_samples * math.prod(sample.shape) * sample.dtype.itemsize
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if num_bytes > free_bytes:
            raise ConfigError(
                f"--data-device device: {sample.num_samples} samples of --data {source.name} take "
                f"{num_bytes / 2**30:.1f} GiB and {device} has {free_bytes / 2**30:.1f} GiB free; use --data-device cpu"
            )
    log.info("%.0f MB of %s on %s: samples are fetched and augmented there", num_bytes / 1e6, source.name, device)
    return replace(source, train=ResidentSplit(source.train, device))


class ResidentSplit:
    """All samples of a split, copied once: inputs on a device, targets on the CPU as those of any split.

    Args:
        split: read whole, some thousand samples at a time.
        device: of the inputs that `fetch` gives.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        inputs, targets = split.fetch(torch.zeros(1, dtype=torch.int64))
        self._inputs = torch.empty(len(split), *inputs.shape[1:], dtype=inputs.dtype, device=device)
        self._targets = torch.empty(len(split), *targets.shape[1:], dtype=targets.dtype)
        for ids in torch.arange(len(split)).split(_SAMPLES_AT_A_TIME):
            part = slice(int(ids[0]), int(ids[-1]) + 1)
            self._inputs[part], self._targets[part] = split.fetch(ids)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # readers have streams of their own

    def __len__(self) -> int:
        return len(self._inputs)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """As any split's, but for the inputs' device. Does not wait for it."""
        return self._inputs.index_select(0, ids.to(self._inputs.device, non_blocking=True)), self.targets(ids)

    def targets(self, ids: Tensor) -> Tensor:
        return self._targets.index_select(0, ids)
