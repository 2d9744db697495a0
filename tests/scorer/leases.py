"""Leases, welcomes and options for tests of the backends, on the bundled digits."""

from collections.abc import Sequence

import numpy as np

from common.config import ScorerOptions
from common.data.sources import open_source
from common.protocol import Array, Lease, Version, Welcome

GENERATION = 7
CHUNK = 64
SEED = 3
NUM = 1437  # training samples of digits
CLASSES = 10


def options(backend: str, **more: object) -> ScorerOptions:
    fixed = {"connect": "ipc:///nowhere/t", "data": "digits", "threads": 1, "scorer_device": "cpu"}
    return ScorerOptions.model_validate({**fixed, "backend": backend, **more})


SOURCE = open_source(options("torch"))


def welcome(scores: Sequence[str], **changes: object) -> Welcome:
    fields = {
        "session": 1, "generation": GENERATION, "seed": SEED, "num_samples": NUM, "chunk_size": CHUNK,
        "scores": tuple(scores), "transfer": "reference", "best_k": None, "lowest_is_hard": True, "wire": "float32",
        "weights_port": 0, "version": None, "heartbeat_s": 1.0, "silence_s": 10.0,
    }  # fmt: skip
    return Welcome(**(fields | changes))  # type: ignore[arg-type]


def lease(start: int = 0, mask: bytes = b"", histories: np.ndarray | None = None, *, is_audit: bool = False) -> Lease:
    array = None if histories is None else Array.of(histories.astype(np.float32))
    return Lease(5, GENERATION, start, start + CHUNK, mask, 0, 60.0, array, is_audit)


def version(step: int = 9) -> Version:
    return Version(GENERATION, step)
