"""The plain values that messages are made of, with their bounds: numbers, names, weights versions, bit masks."""

import math
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta

from common.errors import ProtocolError
from common.protocol.limits import MAX_DIMS, MAX_ELEMENTS, MAX_LEASES, MAX_NAME, MAX_TEXT

MAX_FLOAT = float(np.finfo(np.float64).max)
Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Positive = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Random = Annotated[int, Meta(ge=0)]  # below 2**64, as every int of msgpack
Real = Annotated[float, Meta(ge=-MAX_FLOAT, le=MAX_FLOAT)]  # bounds refuse NaN as well
Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
Name = Annotated[str, Meta(max_length=MAX_NAME)]
Prose = Annotated[str, Meta(max_length=MAX_TEXT)]
Shape = Annotated[tuple[Natural, ...], Meta(max_length=MAX_DIMS)]
Leases = Annotated[tuple[Natural, ...], Meta(max_length=MAX_LEASES)]

DTYPE_BYTES = {
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "bool": 1,
}
"""Every dtype that may travel, by name, with the bytes of one element. Little-endian on the wire."""


class Version(NamedTuple):
    """Which weights: the trainer's start, and the optimiser step at which they were copied. Orders by age."""

    generation: Natural
    step: Natural


class Spent(NamedTuple):
    """What a scorer did with its time since it was welcomed, in seconds; the five make up the whole of it."""

    read_s: Seconds  # samples, with their augmentation
    score_s: Seconds  # forward passes and scores
    load_s: Seconds  # weights that arrived, into its own precision
    answer_s: Seconds  # making and sending answers, and whatever else a backend does for a chunk
    idle_s: Seconds  # nothing to do: no lease, or no weights that may serve one


class TensorSpec(NamedTuple):
    """One entry of a weights manifest."""

    name: Name
    dtype: str
    shape: Shape

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def one_of(options: tuple[str, ...]) -> Meta:
    """The bounds of a string that is one of `options`."""
    return Meta(pattern=rf"^(?:{'|'.join(options)})\Z")


def check_printable(name: str, *texts: str) -> None:
    """Raises ProtocolError for a text with control characters: it ends in logs and on terminals."""
    for text in texts:
        if not text.isprintable():
            raise ProtocolError(f"{name} must be printable, got {text!r:.200}")


def presentable(text: object) -> str:
    """A text for people as it may travel: clipped, and "?" in place of what is neither printable nor a line's end."""
    return "".join(c if c == "\n" or c.isprintable() else "?" for c in str(text)[:MAX_TEXT])


def check_distinct(name: str, values: tuple[object, ...]) -> None:
    if len(set(values)) != len(values):
        raise ProtocolError(f"{name} must not repeat themselves, got {values!r:.200}")


def check_tensor(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of such a tensor. Raises ProtocolError for a dtype that is not in the table, or sizes past numpy's."""
    if dtype not in DTYPE_BYTES:
        raise ProtocolError(f"{name}: dtype must be one of {', '.join(DTYPE_BYTES)}, got {dtype!r:.40}")
    num_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    # (0, 2**62) holds no bytes, yet numpy cannot represent it.
    if not num_bytes and math.prod(size or 1 for size in shape) > MAX_ELEMENTS:
        raise ProtocolError(f"{name}: {dtype} of shape {shape} passes {MAX_ELEMENTS} elements but for its zeros")
    return num_bytes


def pack_mask(flags: np.ndarray) -> bytes:
    """(n,) bool -> ceil(n / 8) bytes; flag i is bit i % 8 of byte i // 8, the lowest bit first."""
    return np.packbits(np.asarray(flags, dtype=np.bool_), bitorder="little").tobytes()


def unpack_mask(mask: bytes, num: int) -> np.ndarray:
    """The inverse of pack_mask: ceil(num / 8) bytes -> (num,) bool."""
    return np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=num, bitorder="little").view(np.bool_)


def check_mask(mask: bytes, num: int) -> None:
    """Raises ProtocolError unless the mask has exactly ceil(num / 8) bytes and no bit set past `num`."""
    if len(mask) != (num + 7) // 8:
        raise ProtocolError(f"a mask of {num} flags has {(num + 7) // 8} bytes, got {len(mask)}")
    if num % 8 and mask[-1] >> num % 8:
        raise ProtocolError(f"a mask of {num} flags has bits set past its end")
