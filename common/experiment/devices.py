"""Which process of a run computes where. GPUs are counted without torch, whose import takes seconds."""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib import metadata

from common.config import RunOptions
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

    trainer: str
    scorers: tuple[str, ...]  # of scorer-0, scorer-1, ...

    @property
    def words(self) -> str:
        """`trainer on cuda:0, 2 scorers on cuda:1, 1 scorer on cuda:2`."""
        counts = Counter(self.scorers)
        return ", ".join(
            [
                f"trainer on {self.trainer}",
                *(f"{num} scorer{'s' if num > 1 else ''} on {device}" for device, num in counts.items()),
            ]
        )


def lay_out(options: RunOptions, num_gpus: int) -> Layout:
    """The trainer takes the first GPU and the scorers the others in turn; one GPU is shared; without any it is the CPU.

    `--device` and `--scorer-device` decide where they are given; scorers still keep off the trainer's GPU if they can.
    """
    gpus = [f"cuda:{index}" for index in range(num_gpus)]
    trainer = (gpus or ["cpu"])[0] if options.device == "auto" else options.device
    taken = "cuda:0" if trainer == "cuda" else trainer
    if options.scorer_device != "auto":
        choice = [options.scorer_device]
    else:
        choice = [gpu for gpu in gpus if gpu != taken] or gpus or ["cpu"]
    return Layout(trainer, tuple(choice[index % len(choice)] for index in range(num_local_scorers(options))))


def num_local_scorers(options: RunOptions) -> int:
    """Scorers that `run` starts: none unless the mode is stale and the method wants scores."""
    return options.scorers if options.needs_scorers else 0


def find_layout(options: RunOptions) -> Layout:
    """The layout on this machine; looks for GPUs only where the options leave something open.

    Raises:
        ConfigError: the driver does not answer.
    """
    is_open = options.device == "auto" or (options.scorer_device == "auto" and num_local_scorers(options) > 0)
    return lay_out(options, count_gpus() if is_open else 0)


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
            f"the CUDA driver did not say within {COUNT_S:.0f} s how many GPUs there are; "
            "name the devices with --device and --scorer-device"
        ) from error
    text = answer.stdout.decode(errors="replace").strip()
    return int(text) if text.isdecimal() else 0  # it may have crashed in a broken driver
