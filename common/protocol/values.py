"""The parts that messages are made of: weights versions, typed arrays over raw bytes, bit masks."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from common.errors import ProtocolError
from common.protocol.limits import DEFAULT_LIMITS, Limits

Buffer = bytes | memoryview

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

_NUMPY = {name: np.dtype(name).newbyteorder("<") for name in DTYPE_BYTES if name != "bfloat16"}
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}


class Version(NamedTuple):
    """Which weights: the trainer's start, and the optimiser step at which they were copied. Orders by age."""

    generation: int
    step: int


class TensorSpec(NamedTuple):
    """One entry of a weights manifest."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def check_shape(dtype: str, shape: tuple[int, ...], max_bytes: int, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raises ProtocolError unless the dtype is in the table and the shape is one that numpy can hold."""
    if type(dtype) is not str or dtype not in DTYPE_BYTES:
        raise ProtocolError(f"dtype must be one of {', '.join(DTYPE_BYTES)}, got {dtype!r:.40}")
    if type(shape) is not tuple or len(shape) > limits.max_dims:
        raise ProtocolError(f"a shape is a tuple of at most {limits.max_dims} sizes, got {shape!r:.80}")
    for size in shape:
        if type(size) is not int or size < 0:
            raise ProtocolError(f"the sizes of a shape are ints >= 0, got {shape!r:.80}")
    # Zeros count as ones here: (0, 2**62) holds no bytes, yet numpy cannot represent it.
    sizes = [size or 1 for size in shape] if 0 in shape else shape
    if math.prod(sizes) * DTYPE_BYTES[dtype] > max_bytes:
        raise ProtocolError(f"{dtype} of shape {shape!r:.80} passes {max_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Array:
    """A typed array over raw bytes: little-endian, C-contiguous, `prod(shape) * DTYPE_BYTES[dtype]` bytes.

    On the wire dtype and shape travel in the header and the bytes as a frame of their own. A decoded array keeps its
    frame alive and shares its memory.
    """

    dtype: str
    shape: tuple[int, ...]
    buffer: Buffer = field(repr=False)

    @staticmethod
    def of(array: np.ndarray) -> "Array":
        """Describes a numpy array; shares its memory if it is C-contiguous and little-endian, else copies it.

        Raises:
            ValueError: the dtype is not one that travels.
        """
        name = _NAMES.get(array.dtype)
        if name is None:  # another byte order, or nothing that travels
            name = array.dtype.name
            if name not in _NUMPY:
                raise ValueError(f"cannot send an array of dtype {name}; those that travel are {', '.join(_NUMPY)}")
            array = array.astype(_NUMPY[name])
        if not array.flags.c_contiguous:
            array = np.array(array, order="C")
        # A memoryview with a zero in its shape cannot be cast to bytes.
        return Array(name, array.shape, array.data.cast("B") if array.size else b"")

    @property
    def nbytes(self) -> int:
        """Bytes that dtype and shape ask for; decoded arrays hold exactly as many."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def as_numpy(self) -> np.ndarray:
        """The same memory as a numpy array; read-only where the buffer is.

        Raises:
            ValueError: bfloat16, which numpy does not have: view `buffer` as torch.bfloat16 instead.
            ProtocolError: a bool array with bytes other than 0 and 1.
        """
        if self.dtype == "bfloat16":
            raise ValueError("numpy has no bfloat16; view the buffer of this array with torch")
        array = np.frombuffer(self.buffer, dtype=np.uint8 if self.dtype == "bool" else _NUMPY[self.dtype])
        if self.dtype == "bool":
            if array.size and array.max() > 1:
                raise ProtocolError("a bool array holds bytes other than 0 and 1")
            array = array.view(np.bool_)
        return array.reshape(self.shape)


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
