"""What another process makes of the same options: run as a script, it prints JSON.

One process for several tests, as its imports take seconds. Warnings are errors in it, and it has other numbers of
threads, another state of the global generator and another seed of the run than the tests.
"""

import hashlib
import json
from typing import Any

import torch

from common.config import DataOptions, TrainerOptions
from common.data.sources import open_source

SEED_OF_THE_RUN = 7
NOISE = 0.2
NAMES = ("digits", "synthetic")


def digests_of_samples() -> list[str]:
    """Of inputs and targets of each source."""
    fetched = [open_source(DataOptions(data=name)).train.fetch(torch.arange(1000)) for name in NAMES]
    return [hashlib.sha256(part.numpy().tobytes()).hexdigest() for parts in fetched for part in parts]


def made() -> dict[str, Any]:
    from tests.common.data.test_augment import augmented_digest

    augmented = []
    for num_threads in (1, 5):
        torch.set_num_threads(num_threads)
        torch.manual_seed(num_threads)
        augmented.append(augmented_digest())
    noisy = open_source(TrainerOptions(data="digits", label_noise=NOISE, seed=SEED_OF_THE_RUN))
    labels = noisy.targets(torch.arange(1437)).tolist()
    return {"samples": digests_of_samples(), "augmented": augmented, "noisy labels": labels}


if __name__ == "__main__":
    print(json.dumps(made()))  # noqa: T201
