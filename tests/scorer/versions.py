"""Weights versions in small buckets, as a trainer sends them."""

import numpy as np
from msgspec.structs import replace

from common import buckets
from common.protocol import TensorSpec, Version, Weights

BUCKET = 64
MANIFEST = (TensorSpec("w", "uint8", (300,)),)
SESSION = 11


def version(step: int) -> Version:
    return Version(7, step)


def content(step: int, size: int = 320) -> bytes:
    return np.random.default_rng(step).bytes(size)


def messages(step: int, size: int = 320) -> list[Weights]:
    """The buckets of a version as a trainer sends them."""
    data, num = content(step, size), buckets.num_buckets(size)
    made = []
    for bucket in range(num):
        start, stop = buckets.bucket_span(bucket, size)
        part = data[start:stop]
        made.append(
            Weights(version(step), bucket, num, size, buckets.bucket_checksum(part), None if bucket else MANIFEST, part)
        )
    return made


def empty() -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    return np.empty(0, dtype=np.uint8)


def spoilt(message: Weights) -> Weights:
    return replace(message, buffer=bytes([message.buffer[0] ^ 1]) + bytes(message.buffer[1:]))
