"""Plain training by two processes, each on half of every batch: `python -m tests.bench.target.two_processes FILE`.

The reference that people would otherwise start: DistributedDataParallel over gloo, one thread a process, with the
product's data, augmentation, optimiser, schedule and loop. Each process reads half of the samples. FILE holds the
options of a plain run, whose folder this leaves: the record is that of process 0, whose BatchNorm statistics count.
"""

import ctypes
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from common.config import RunOptions
from common.data.source import Source, Split
from common.data.sources import open_source
from common.devices import set_threads
from common.errors import ConfigError
from common.experiment.records import read_options
from common.memory import keep_freed_memory
from common.run import Run
from common.run_folder import write_options
from trainer.loop import make_model, train
from trainer.ranks.group import ALONE
from trainer.stream import SelectedBatches
from trainer.training import Training

PROCESSES = 2
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Half:
    """Every second sample of a split, under ids of its own."""

    def __init__(self, split: Split, rank: int) -> None:
        self._split = split
        self._rank = rank

    def __len__(self) -> int:
        return len(self._split) // PROCESSES

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self._split.fetch(ids * PROCESSES + self._rank)


def half_of(source: Source, rank: int) -> Source:
    """The source with one process's samples."""
    return replace(source, train=Half(source.train, rank), noise=None)


def half_options(options: RunOptions, out: Path) -> RunOptions:
    """What one process trains on: half the batch, on one thread.

    Raises:
        ConfigError: a batch that has no halves, or a device that two processes cannot share.
    """
    if options.batch_size % PROCESSES:
        raise ConfigError(f"--batch-size must be even for {PROCESSES} processes, got {options.batch_size}")
    if options.device != "cpu" and (options.device != "auto" or torch.cuda.is_available()):
        raise ConfigError(f"plain training in {PROCESSES} processes is for the CPU, got --device {options.device}")
    update = {"batch_size": options.batch_size // PROCESSES, "threads": 1, "out": out}
    return options.model_copy(update=update)


def main(path: Path) -> None:
    """Trains to the end, or raises what either process raised."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    with TemporaryDirectory(prefix="marginstream-") as folder:
        spawn(_train, args=(path, folder), nprocs=PROCESSES)


def _train(rank: int, path: Path, folder: str) -> None:
    options = read_options(path)
    assert options.out is not None, "the benchmark names the folder"
    half = half_options(options, options.out if rank == 0 else Path(folder) / "rank-1")
    set_threads(half.num_threads)
    keep_freed_memory()  # as every trainer does
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    try:
        source = half_of(open_source(half), rank)
        model = make_model(half, source)
        parallel = DistributedDataParallel(model, broadcast_buffers=False)
        with Run(half) as run:
            batches = SelectedBatches(half, source, model, generation=run.generation, group=ALONE)
            with Training(run, batches, source, parallel) as training:
                train(training)
                summary = training.finish()
        if rank == 0:
            write_options(run.folder, options)  # of the whole run, by which its record is known
            run.write_summary({**summary, "words": f"Trained by {PROCESSES} processes, half of every batch each."})
        dist.barrier()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
