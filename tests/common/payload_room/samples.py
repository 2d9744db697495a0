"""What is shipped, without torch: for processes that a test starts and kills."""

import math

import numpy as np

from common.protocol import Array, Candidates, Version, Welcome

SESSION = 2**63 + 7
NUM, SHAPE = 6, (3, 64, 64)  # 73,728 bytes: 18 pages, more than what goes through the socket anyway
WELCOME = Welcome(SESSION, 3, 0, 50_000, NUM, ("mms",), "payload", None, True, "float32", 0, None, 1.0, 10.0)
NOISE = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8)


def samples(seed: int, num: int = NUM) -> np.ndarray:
    """(num, *SHAPE) uint8 that are no other seed's; seeds are less than 100,000."""
    return NOISE[seed : seed + num * math.prod(SHAPE)].reshape(num, *SHAPE)


def answer_of(lease: int, inputs: np.ndarray) -> Candidates:
    """Candidates with a payload, as a scorer makes them."""
    num = len(inputs)
    return Candidates(
        *(lease, Version(3, 41), num, b"", (Array.of(np.zeros(num, np.float32)),), None, None, 0.0, 0.0),
        inputs=Array.of(inputs),
        targets=Array.of(np.arange(num)),
    )
