"""Codecs of the fields that bring frames of raw bytes: scores, arrays, a bucket of weights and its manifest."""

import io
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import msgpack
import numpy as np

from common.errors import ProtocolError
from common.protocol.fields import Buffers, Name
from common.protocol.limits import MAX_HISTORY, MAX_NAME
from common.protocol.values import Array, Buffer, TensorSpec, check_shape


@dataclass(frozen=True, slots=True)
class Scores:
    """A tuple of float32 arrays of one dimension. The header holds their number; the message checks their lengths."""

    most: int

    def pack(self, value: Any, buffers: Buffers) -> int:
        if type(value) is not tuple or len(value) > self.most:
            raise ProtocolError(f"must be a tuple of at most {self.most} arrays, got {short(value)}")
        for scores in value:
            if type(scores) is not Array or scores.dtype != "float32" or len(scores.shape) != 1:
                raise ProtocolError(f"must be float32 arrays of one dimension, got {short(scores)}")
            _put_array(scores, buffers)
        return len(value)

    def unpack(self, value: Any, buffers: Buffers) -> tuple[Array, ...]:
        if type(value) is not int or not 0 <= value <= self.most:
            raise ProtocolError(f"must number at most {self.most}, got {short(value)}")
        frames = [buffers.take() for _ in range(value)]
        if any(len(frame) % 4 for frame in frames):
            raise ProtocolError(f"float32 arrays have multiples of 4 bytes, got {[len(frame) for frame in frames]}")
        return tuple(Array("float32", (len(frame) // 4,), frame) for frame in frames)


@dataclass(frozen=True, slots=True)
class TypedArray:
    """An array whose dtype and shape stand in the header. `dtype` and `least_dims` narrow what is let through."""

    dtype: str | None = None
    least_dims: int = 0

    def pack(self, value: Any, buffers: Buffers) -> tuple[str, tuple[int, ...]]:
        if type(value) is not Array:
            raise ProtocolError(f"must be an Array, got {short(value)}")
        self._check(value.dtype, value.shape, buffers)
        _put_array(value, buffers)
        return value.dtype, value.shape

    def unpack(self, value: Any, buffers: Buffers) -> Array:
        if type(value) is not tuple or len(value) != 2:
            raise ProtocolError(f"must be (dtype, shape), got {short(value)}")
        dtype, shape = value
        self._check(dtype, shape, buffers)
        array = Array(dtype, shape, buffers.take())
        if array.nbytes != len(array.buffer):
            raise ProtocolError(f"{dtype} of shape {shape} has {array.nbytes} bytes, got {len(array.buffer)}")
        return array

    def _check(self, dtype: str, shape: tuple[int, ...], buffers: Buffers) -> None:
        check_shape(dtype, shape, buffers.limits.max_frame_bytes, buffers.limits)
        if self.dtype is not None and dtype != self.dtype:
            raise ProtocolError(f"must be of dtype {self.dtype}, got {dtype}")
        if len(shape) < self.least_dims:
            raise ProtocolError(f"must have at least {self.least_dims} dimensions, got shape {shape}")


@dataclass(frozen=True, slots=True)
class Raw:
    """A frame of bytes; the header holds its length, so that a truncated one shows."""

    def pack(self, value: Any, buffers: Buffers) -> int:
        if not isinstance(value, (bytes, memoryview)):
            raise ProtocolError(f"must be bytes or a memoryview, got {type(value).__name__}")
        return buffers.put(value)

    def unpack(self, value: Any, buffers: Buffers) -> Buffer:
        frame = buffers.take()
        if type(value) is not int or value != len(frame):
            raise ProtocolError(f"header announces {short(value)} bytes, got {len(frame)}")
        return frame


@dataclass(frozen=True, slots=True)
class Manifest:
    """Names, dtypes and shapes of a model's tensors, in a frame of their own: a header stays small for every message.

    The frame is a plain sequence name, dtype, shape, name, ... and is read value by value, so a false one costs no more
    memory than the tensors before its first fault. The header holds the number of tensors.
    """

    def pack(self, value: Any, buffers: Buffers) -> int:
        if type(value) is not tuple or len(value) > buffers.limits.max_tensors:
            raise ProtocolError(f"must be a tuple of at most {buffers.limits.max_tensors} tensors, got {short(value)}")
        stream = io.BytesIO()
        for spec in value:
            if type(spec) is not TensorSpec:
                raise ProtocolError(f"must hold TensorSpecs, got {short(spec)}")
            for part in self._checked(spec.name, spec.dtype, spec.shape, buffers):
                stream.write(msgpack.packb(part))
        _check_distinct(value)
        if buffers.put(stream.getvalue()) > buffers.limits.max_manifest_bytes:
            raise ProtocolError(f"passes {buffers.limits.max_manifest_bytes} bytes")
        return len(value)

    def unpack(self, value: Any, buffers: Buffers) -> tuple[TensorSpec, ...]:
        limits = buffers.limits
        if type(value) is not int or not 0 <= value <= limits.max_tensors:
            raise ProtocolError(f"must number at most {limits.max_tensors} tensors, got {short(value)}")
        frame = buffers.take()
        if len(frame) > limits.max_manifest_bytes:
            raise ProtocolError(f"passes {limits.max_manifest_bytes} bytes, got {len(frame)}")
        reader = unpacker(frame, max_array_len=limits.max_dims)
        try:
            specs = tuple(
                self._checked(reader.unpack(), reader.unpack(), reader.unpack(), buffers) for _ in range(value)
            )
        except UNPACKING_ERRORS as error:
            raise ProtocolError(f"is not a list of {value} tensors: {error}") from error
        if reader.tell() != len(frame):
            raise ProtocolError(f"has {len(frame) - reader.tell()} bytes past its {value} tensors")
        _check_distinct(specs)
        return specs

    def _checked(self, name: Any, dtype: Any, shape: Any, buffers: Buffers) -> TensorSpec:
        check_shape(dtype, shape, buffers.limits.max_weights_bytes, buffers.limits)
        return TensorSpec(Name().pack(name, buffers), dtype, shape)


UNPACKING_ERRORS = (ValueError, TypeError, RecursionError, msgpack.UnpackException)
"""What msgpack raises on malformed input."""


def unpacker(data: Buffer, *, max_array_len: int) -> msgpack.Unpacker:
    """A reader of msgpack values that knows neither maps nor extension types, and bounds all else."""
    reader = msgpack.Unpacker(
        raw=False,
        use_list=False,
        strict_map_key=True,
        ext_hook=refuse_extension,
        max_buffer_size=max(len(data), 1),
        max_str_len=4 * MAX_NAME,
        max_bin_len=0,
        max_array_len=max_array_len,
        max_map_len=0,
        max_ext_len=0,
    )
    reader.feed(data)
    return reader


def refuse_extension(code: int, data: bytes) -> None:
    raise ProtocolError(f"extension type {code} is not part of this protocol")


def _put_array(array: Array, buffers: Buffers) -> None:
    if buffers.put(array.buffer) != array.nbytes:
        raise ProtocolError(f"{array.dtype} of shape {array.shape} has {array.nbytes} bytes, got another buffer")


def check_histories(histories: Array, num: int) -> None:
    """Raises ProtocolError unless these are float32 losses (num, H), 1 <= H <= MAX_HISTORY, or NaN for none."""
    if len(histories.shape) != 2 or histories.shape[0] != num or not 1 <= histories.shape[1] <= MAX_HISTORY:
        raise ProtocolError(f"histories must be ({num}, 1 to {MAX_HISTORY}), got {histories.shape}")
    if np.isinf(histories.as_numpy()).any():
        raise ProtocolError("histories hold finite losses, and NaN for none; got an infinite one")


def _check_distinct(specs: tuple[TensorSpec, ...]) -> None:
    if len({spec[0] for spec in specs}) != len(specs):
        raise ProtocolError("must not name a tensor twice")
