"""Typed arrays over raw bytes, and how they travel: small ones within the header, others as a frame of their own."""

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from common.errors import ProtocolError
from common.protocol.limits import INLINE_BYTES, MAX_HISTORY
from common.protocol.values import DTYPE_BYTES, Shape, check_tensor

Buffer = bytes | memoryview
if TYPE_CHECKING:
    Inline = Buffer
else:
    Inline = memoryview | None  # what the header holds: nil for an array in a frame of its own

_NUMPY = {name: np.dtype(f"<{np.dtype(name).str[1:]}") for name in DTYPE_BYTES if name != "bfloat16"}
_NAMES = {np.empty(0, dtype).data.format: name for name, dtype in _NUMPY.items()}


class Array(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A typed array over raw bytes: little-endian, C-contiguous, `prod(shape) * DTYPE_BYTES[dtype]` bytes.

    A decoded array keeps the frame that it came in alive and shares its memory.
    """

    dtype: str
    shape: Shape
    buffer: Inline

    def __repr__(self) -> str:
        return f"Array({self.dtype!r}, {self.shape})"

    @staticmethod
    def of(array: np.ndarray) -> "Array":
        """Describes a numpy array; shares its memory if it is C-contiguous and little-endian, else copies it.

        Raises:
            ValueError: the dtype is not one that travels.
        """
        view = array.data
        name = _NAMES.get(view.format)
        if name is None or not view.c_contiguous:  # another byte order or layout, or nothing that travels
            name = array.dtype.name
            if name not in _NUMPY:
                raise ValueError(f"cannot send an array of dtype {name}; those that travel are {', '.join(_NUMPY)}")
            view = np.array(array, dtype=_NUMPY[name], order="C").data
        # A memoryview with a zero in its shape cannot be cast to bytes.
        return Array(name, array.shape, view.cast("B") if view.nbytes else b"")

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
        array = np.ndarray(self.shape, _NUMPY[self.dtype], self.buffer)
        if self.dtype == "bool" and array.view(np.uint8).max(initial=0) > 1:
            raise ProtocolError("a bool array holds bytes other than 0 and 1")
        return array

    def outgoing(self, name: str, frames: list[Buffer]) -> "Array":
        """What the header holds in place of this array. Raises ProtocolError for bytes that are not its shape's."""
        buffer = flat_bytes(name, self.buffer)
        self._check_size(name, buffer)
        if len(buffer) > INLINE_BYTES:
            frames.append(buffer)
            return Array(self.dtype, self.shape, None)  # type: ignore[arg-type]
        return self if buffer is self.buffer else Array(self.dtype, self.shape, buffer)

    def incoming(self, name: str, frames: list[Buffer]) -> None:
        """Complete what the header held. Raises ProtocolError for bytes that are not its shape's."""
        if self.buffer is None:
            msgspec.structs.force_setattr(self, "buffer", frames.pop(0))
        self._check_size(name, self.buffer)

    def _check_size(self, name: str, buffer: Buffer) -> None:
        num_bytes = check_tensor(name, self.dtype, self.shape)
        if num_bytes != len(buffer):
            raise ProtocolError(f"{name}: {self.dtype} of shape {self.shape} has {num_bytes} bytes, got {len(buffer)}")


def flat_bytes(name: str, buffer: object) -> Buffer:
    """The same memory as single bytes in a row. Raises ProtocolError for what is no contiguous buffer."""
    if isinstance(buffer, bytes):
        return buffer
    if not isinstance(buffer, memoryview) or not buffer.c_contiguous:
        raise ProtocolError(f"{name} is bytes or a contiguous memoryview, got {type(buffer).__name__}")
    if buffer.ndim == 1 and buffer.format == "B":
        return buffer
    return buffer.cast("B") if buffer.nbytes else b""


def check_array(name: str, array: Array | None, dtype: str, *shape: int | range) -> None:
    """Raises ProtocolError unless there is no array or one of this dtype and shape; a range bounds a size."""
    if array is None or (array.dtype == dtype and array.shape == shape):
        return
    fits = len(array.shape) == len(shape) and all(
        size in wanted if isinstance(wanted, range) else size == wanted
        for size, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ProtocolError(f"{name} must be {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")


def check_histories(histories: Array, num: int) -> None:
    """Raises ProtocolError unless these are float32 losses (num, H), 1 <= H <= MAX_HISTORY, or NaN for none."""
    check_array("histories", histories, "float32", num, range(1, MAX_HISTORY + 1))
    if np.isinf(histories.as_numpy()).any():
        raise ProtocolError("histories hold finite losses, and NaN for none; got an infinite one")
