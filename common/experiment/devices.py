"""Which process of a run computes where. GPUs are counted without torch, whose import takes seconds."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from common.config import RunOptions
from common.config.run import same_device
from common.errors import ConfigError

COUNT_S = 20.0

# Asks the driver, which knows about CUDA_VISIBLE_DEVICES and MIG, and is there where nvidia-smi is not. In a process of
# its own: a sick driver may hang, and the one that starts everything needs no CUDA.
_COUNT = """
import ctypes
count = ctypes.c_int()
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    answered = cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
except OSError:
    answered = False
print(count.value if answered else 0)
"""


@dataclass(frozen=True)
class Layout:
    """Devices by process, named as in `--device`."""

    trainers: tuple[str, ...]  # by rank
    scorers: tuple[str, ...]  # of scorer-0, scorer-1, ...

    @property
    def trainer(self) -> str:
        """Of rank 0."""
        return self.trainers[0]

    @property
    def words(self) -> str:
        """`trainer on cuda:0, 2 scorers on cuda:1, 1 scorer on cuda:2`."""
        counts = Counter(self.scorers)
        *others, last = dict.fromkeys(self.trainers)
        where = f"{', '.join(others)} and {last}" if others else last
        return ", ".join(
            [
                f"{len(self.trainers)} trainers on {where}" if len(self.trainers) > 1 else f"trainer on {where}",
                *(f"{num} scorer{'s' if num > 1 else ''} on {device}" for device, num in counts.items()),
            ]
        )


def trainer_names(num: int) -> tuple[str, ...]:
    """Of the processes by rank: `trainer`, or `trainer-0`, `trainer-1`, …"""
    return ("trainer",) if num == 1 else tuple(f"trainer-{rank}" for rank in range(num))


def lay_out(options: RunOptions, num_gpus: int) -> Layout:
    """Trainers take the first GPUs and the scorers the others in turn, or the same ones; without any it is the CPU.

    `--devices` names others in their place; `--device` and `--scorer-device` decide where they are given, and scorers
    still keep off the trainers' GPUs if they can.

    Raises:
        ConfigError: there is no GPU for each of several trainers.
    """
    pool = list(options.devices) or [f"cuda:{index}" for index in range(num_gpus)]
    trainers = _for_trainers(options, pool)
    if options.scorer_device != "auto":
        choice = [options.scorer_device]
    else:
        taken = set(map(same_device, trainers))
        choice = [device for device in pool if same_device(device) not in taken] or pool or ["cpu"]
    return Layout(trainers, tuple(choice[index % len(choice)] for index in range(num_local_scorers(options))))


def _for_trainers(options: RunOptions, pool: Sequence[str]) -> tuple[str, ...]:
    num = options.trainers
    if options.device != "auto":
        return (options.device,) * num
    first = pool[0] if pool else "cpu"
    if num == 1 or first == "cpu":
        return (first,) * num
    gpus = [device for device in pool if device.startswith("cuda")]
    if len(gpus) < num:
        found = f"--devices names {len(gpus)}" if options.devices else f"this machine has {len(gpus)}"
        remedy = "name more, " if options.devices else ""
        raise ConfigError(
            f"--trainers {num} need a GPU each, as NCCL lets no two ranks share one, and {found}; {remedy}lower "
            "--trainers, or let all train on the CPU with --device cpu"
        )
    return tuple(gpus[:num])


def num_local_scorers(options: RunOptions) -> int:
    """Scorers that `run` starts: none unless the mode is stale and the method wants scores."""
    return options.scorers if options.needs_scorers else 0


def find_layout(options: RunOptions) -> Layout:
    """The layout on this machine; looks for GPUs only where the options leave something open.

    Raises:
        ConfigError: the driver does not answer, or there are too few GPUs.
    """
    is_open = options.device == "auto" or (options.scorer_device == "auto" and num_local_scorers(options) > 0)
    return lay_out(options, count_gpus() if is_open and not options.devices else 0)


def count_gpus() -> int:
    """CUDA devices that torch would see; 0 without a driver, and for a torch that was built without CUDA.

    Raises:
        ConfigError: the driver does not answer.
    """
    if metadata.version("torch").partition("+")[2].startswith("cpu"):
        return 0
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _COUNT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COUNT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"the CUDA driver did not say within {COUNT_S:.0f} s how many GPUs there are; name them with --devices"
        ) from error
    text = answer.stdout.decode(errors="replace").strip()
    return int(text) if text.isdecimal() else 0  # it may have crashed in a broken driver
