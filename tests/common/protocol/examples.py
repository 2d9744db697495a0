"""A message of each kind, for tests that spoil it."""

import numpy as np
from msgspec import msgpack
from msgspec.structs import replace

from common.protocol import (
    MAGIC,
    PROTOCOL_VERSION,
    Array,
    Candidates,
    Feedback,
    Hello,
    Lease,
    TensorSpec,
    Version,
    Weights,
    Welcome,
)

HELLO = Hello(
    PROTOCOL_VERSION, "run", "host:12", 2**64 - 1, "cpu", "float32", "torch", {"model": "ab", "data": "cd"}, 1797, 10
)
WELCOME = Welcome(7, 3, 0, 50_000, 128, ("mms",), "reference", None, True, "float32", 0, Version(3, 0), 1.0, 10.0)
LEASE = Lease(lease=12_345, generation=3, start=1000, stop=1006, mask=b"", oldest_step=40, deadline_s=60)
CANDIDATES = Candidates(
    lease=12_345,
    version=Version(3, 41),
    num=6,
    dropped=b"",
    scores=(Array.of(np.arange(6, dtype=np.float32)),),
    loss_mean=0.5,
    accuracy=0.25,
    read_s=0.01,
    score_s=0.02,
)
WEIGHTS = Weights(
    Version(3, 41), 0, 2, 40, 2**32 - 1, (TensorSpec("a", "float32", (2, 3)), TensorSpec("n", "int64", ())), b"x" * 20
)


def with_payload(rows: list[int] | None = None, num: int = 6) -> Candidates:
    return replace(
        CANDIDATES,
        rows=None if rows is None else Array.of(np.array(rows, dtype=np.int32)),
        inputs=Array.of(np.zeros((num, 1, 32, 32), dtype=np.uint8)),
        targets=Array.of(np.zeros(num, dtype=np.int64)),
    )


def with_embeddings(errors: object = None, features: object = None, **changes: object) -> Candidates:
    """Six rows of three classes and of five features, where nothing else is told."""
    made = {
        "errors": np.zeros((6, 3), dtype=np.float16) if errors is None else errors,
        "features": np.ones((6, 5), dtype=np.float16) if features is None else features,
    }
    return replace(CANDIDATES, **{name: Array.of(array) for name, array in made.items()}, **changes)


def some_feedback(**changes: Array) -> Feedback:
    histories = np.full((3, 10), np.nan, dtype=np.float32)
    return replace(Feedback.of(np.array([7, 0, 41]), np.array([0.5, 0.25, 1.0]), histories), **changes)


def frames_of(header: object, code: int) -> list[bytes | memoryview]:
    return [MAGIC + bytes([code]) + msgpack.encode(header)]
