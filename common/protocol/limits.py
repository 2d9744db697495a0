"""Bounds on everything that arrives, so that a broken or hostile peer costs its session and not our memory."""

from dataclasses import dataclass

PROTOCOL_VERSION = 8
"""Raised when any message changes its layout, or when it may come.

HELLO's first field and all of REJECT stay readable for ever.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may hold. `encode` and `decode` apply the same bounds, so both ends should use the same ones.

    The transport limits the size of a frame before it is received; these are checked on frames already in memory.
    Of what msgpack claims, nothing is allocated before its bytes are there.
    """

    max_frames: int = 16
    max_frame_bytes: int = 1 << 28
    max_total_bytes: int = 1 << 29
    max_header_bytes: int = 3 << 15
    max_weights_bytes: int = 1 << 36
    max_buckets: int = 1 << 20
    max_chunk: int = 1 << 16
    max_state_bytes: int = 1 << 22


DEFAULT_LIMITS = Limits()

INLINE_BYTES = 5 << 10
"""An array of at most so many bytes travels in the header; the 15 arrays and the mask of CANDIDATES fit together."""

MAX_DIMS = 8
MAX_ELEMENTS = 1 << 36
MAX_LEASES = 1 << 10
MAX_RANKS = 1 << 10
MAX_TENSORS = 1 << 14
MAX_MANIFEST_BYTES = 1 << 21

MAX_HISTORY = 32
"""Past losses of one sample that may travel."""

MAX_NAME = 256
"""Characters of a name: a run, a host, a device, a digest, a tensor. Printable ones only."""

MAX_ADDRESS = 64
"""Characters of a host's number with a port."""

MAX_TEXT = 1024
"""Characters of a text for people; `encode` clips longer ones."""
