"""A version of the weights travels as buckets: equal slices of one flat buffer, each with its own checksum."""

import zlib

BUCKET_BYTES = 4 << 20  # large enough for full throughput, small enough that a small message never waits long
WINDOW = 4  # buckets a scorer asks for ahead: what a stuck one can hold in the trainer's queues


def num_buckets(total_bytes: int) -> int:
    """Buckets of a flat buffer; at least one, so that a model without weights still has a version."""
    return max(1, -(-total_bytes // BUCKET_BYTES))


def bucket_span(bucket: int, total_bytes: int) -> tuple[int, int]:
    """Start and stop byte of a bucket."""
    start = bucket * BUCKET_BYTES
    return start, min(start + BUCKET_BYTES, total_bytes)


def bucket_checksum(data: bytes | memoryview) -> int:
    """CRC-32: catches what is torn or misplaced, not what is forged. Releases the GIL."""
    return zlib.crc32(data)
