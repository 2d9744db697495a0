"""A weights version on its way in: asked for in windows, verified bucket by bucket, complete or nothing.

No torch here: a scorer that only keeps the protocol busy fetches weights too.
"""

from dataclasses import dataclass

import numpy as np

from common.buckets import WINDOW, bucket_checksum, bucket_span, flat_buffer, num_buckets
from common.errors import ProtocolError
from common.protocol import TensorSpec, Version, Weights
from scorer.landing import Landing


@dataclass
class StagedWeights:
    """A whole, verified version: `flat` is (total_bytes,) uint8, laid out by `manifest`.

    Whoever loads it may keep that memory, and then leaves other memory of this size in its place, for a later version.
    """

    version: Version
    manifest: tuple[TensorSpec, ...]
    flat: "np.ndarray[tuple[int], np.dtype[np.uint8]]"


@dataclass
class Transfer:
    """The state of one version's transfer into a staging buffer.

    Buckets arrive in order (one socket, one sender); anything else is an error and the transfer starts again.
    """

    version: Version
    buffer: "np.ndarray[tuple[int], np.dtype[np.uint8]]"
    manifest: tuple[TensorSpec, ...] | None = None
    received: int = 0
    asked: int = 0
    total: int = 1
    total_bytes: int = 0
    landing: Landing | None = None

    def receive(self, message: Weights, landing: Landing | None = None) -> StagedWeights | None:
        """Take a bucket; returns the version when this was the last one.

        Args:
            landing: with bucket 0, where the buckets land; None keeps the layout of the wire.

        Raises:
            ProtocolError: out of order, of another size than announced, or its checksum is wrong.
        """
        if message.bucket != self.received:
            raise ProtocolError(f"weights: bucket {message.bucket} where {self.received} was due")
        if self.received == 0:
            self.manifest = message.manifest
            self.total_bytes, self.total = message.total_bytes, num_buckets(message.total_bytes)
            size_bytes = self.total_bytes
            if landing is not None:
                self.landing, self.manifest, size_bytes = landing, landing.rows, landing.total_bytes
            if len(self.buffer) != size_bytes:
                self.buffer = flat_buffer(size_bytes)
        start, stop = bucket_span(message.bucket, self.total_bytes)
        if message.num_buckets != self.total or len(message.buffer) != stop - start:
            raise ProtocolError(f"weights: bucket {message.bucket} has {len(message.buffer)} bytes, not {stop - start}")
        if bucket_checksum(message.buffer) != message.checksum:
            raise ProtocolError(f"weights: checksum of bucket {message.bucket} of {tuple(self.version)} is wrong")
        received = np.frombuffer(message.buffer, dtype=np.uint8)
        if self.landing is None:
            self.buffer[start:stop] = received
        else:
            self.landing.put(self.buffer, start, received)
        self.received += 1
        if self.received < self.total:
            return None
        assert self.manifest is not None, "bucket 0 brings the manifest, and came first"
        return StagedWeights(self.version, self.manifest, self.buffer)

    def next_window(self) -> tuple[int, int] | None:
        """(first bucket, number) to ask for now, keeping half a window under way; None if enough is.

        How many there are comes with the first: until then a window is asked for, and the trainer sends what it has.
        """
        known = self.total if self.received else WINDOW
        if self.asked >= known or self.asked - self.received > WINDOW // 2:
            return None
        first, count = self.asked, min(WINDOW, known - self.asked)
        self.asked += count
        return first, count
