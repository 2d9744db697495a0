"""How one field of a message becomes a msgpack value and back. Both directions apply the same checks.

A codec is put beside the type of a field, as in `Annotated[int, Int(1)]`. `pack` and `unpack` raise ProtocolError
without naming the field; `frames` adds the name. Values with raw bytes take a frame each, in the order of the fields.
"""

import math
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Annotated, Any, Protocol

from common.errors import ProtocolError
from common.protocol.limits import MAX_NAME, MAX_TEXT, Limits
from common.protocol.values import Buffer, Version


def flat_bytes(buffer: Buffer) -> Buffer | None:
    """The same memory as single bytes in a row; None if it is not contiguous."""
    if type(buffer) is bytes:
        return buffer
    view = memoryview(buffer)
    if view.ndim == 1 and view.format == "B" and view.contiguous:
        return view
    if not view.c_contiguous:
        return None
    return view.cast("B") if view.nbytes else b""


@dataclass(slots=True)
class Buffers:
    """The raw frames of one message: filled while packing, taken one after the other while unpacking."""

    limits: Limits
    frames: list[Buffer] = field(default_factory=list)
    taken: int = 0

    def put(self, buffer: Buffer) -> int:
        flat = flat_bytes(buffer)
        if flat is None:
            raise ProtocolError("a buffer must be contiguous")
        self.frames.append(flat)
        return len(flat)

    def take(self) -> Buffer:
        if self.taken == len(self.frames):
            raise ProtocolError(f"header announces more than the {len(self.frames)} buffers that came")
        self.taken += 1
        return self.frames[self.taken - 1]


class Codec(Protocol):
    def pack(self, value: Any, buffers: Buffers) -> object: ...

    def unpack(self, value: Any, buffers: Buffers) -> Any: ...


@dataclass(frozen=True, slots=True)
class Int:
    """An int in [low, high]; bools and numpy's integers are none."""

    low: int = 0
    high: int = (1 << 63) - 1

    def pack(self, value: Any, buffers: Buffers) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ProtocolError(f"must be an int in [{self.low}, {self.high}], got {short(value)}")
        return value

    unpack = pack


@dataclass(frozen=True, slots=True)
class Real:
    """A finite float in [low, high]. An int is turned into a float before it is sent, and refused when it comes."""

    low: float = -math.inf
    high: float = math.inf

    def pack(self, value: Any, buffers: Buffers) -> float:
        return self.unpack(float(value) if type(value) is int and abs(value) < 1 << 53 else value, buffers)

    def unpack(self, value: Any, buffers: Buffers) -> float:
        if type(value) is not float or not math.isfinite(value) or not self.low <= value <= self.high:
            raise ProtocolError(f"must be a finite float in [{self.low}, {self.high}], got {short(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Flag:
    def pack(self, value: Any, buffers: Buffers) -> bool:
        if type(value) is not bool:
            raise ProtocolError(f"must be a bool, got {short(value)}")
        return value

    unpack = pack


@dataclass(frozen=True, slots=True)
class Name:
    """A short printable string: it ends in logs and on terminals, so control characters are refused."""

    def pack(self, value: Any, buffers: Buffers) -> str:
        if type(value) is not str or len(value) > MAX_NAME or not value.isprintable():
            raise ProtocolError(f"must be a printable string of at most {MAX_NAME} characters, got {short(value)}")
        return value

    unpack = pack


@dataclass(frozen=True, slots=True)
class Text:
    """A text for people. What is sent is clipped and made printable; what comes must be so already."""

    def pack(self, value: Any, buffers: Buffers) -> str:
        return "".join(c if c == "\n" or c.isprintable() else "?" for c in str(value)[:MAX_TEXT])

    def unpack(self, value: Any, buffers: Buffers) -> str:
        if type(value) is not str or len(value) > MAX_TEXT or not value.replace("\n", "").isprintable():
            raise ProtocolError(f"must be a printable text of at most {MAX_TEXT} characters, got {short(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple[str, ...]

    def pack(self, value: Any, buffers: Buffers) -> str:
        if type(value) is not str or value not in self.options:
            raise ProtocolError(f"must be one of {', '.join(self.options)}, got {short(value)}")
        return value

    unpack = pack


@dataclass(frozen=True, slots=True)
class Choices:
    """A tuple of different options, in an order that has a meaning."""

    options: tuple[str, ...]

    def pack(self, value: Any, buffers: Buffers) -> tuple[str, ...]:
        if type(value) is not tuple or any(type(name) is not str or name not in self.options for name in value):
            raise ProtocolError(f"must be a tuple out of {', '.join(self.options)}, got {short(value)}")
        if len(set(value)) != len(value):
            raise ProtocolError(f"must not repeat itself, got {short(value)}")
        return value

    unpack = pack


@dataclass(frozen=True, slots=True)
class Keyed:
    """A dict of names whose keys are among `keys`; travels as one value or nil per key."""

    keys: tuple[str, ...]

    def pack(self, value: Any, buffers: Buffers) -> tuple[str | None, ...]:
        if type(value) is not dict or not set(value) <= set(self.keys):
            raise ProtocolError(f"must be a dict with keys out of {', '.join(self.keys)}, got {short(value)}")
        return tuple(Name().pack(value[key], buffers) if key in value else None for key in self.keys)

    def unpack(self, value: Any, buffers: Buffers) -> dict[str, str]:
        if type(value) is not tuple or len(value) != len(self.keys):
            raise ProtocolError(f"must be {len(self.keys)} names or nils, got {short(value)}")
        pairs = zip(self.keys, value, strict=True)
        return {key: Name().unpack(name, buffers) for key, name in pairs if name is not None}


@dataclass(frozen=True, slots=True)
class LeaseIds:
    """A tuple of at most max_leases different lease numbers."""

    def pack(self, value: Any, buffers: Buffers) -> tuple[int, ...]:
        if type(value) is not tuple or len(value) > buffers.limits.max_leases:
            raise ProtocolError(f"must be a tuple of at most {buffers.limits.max_leases} leases, got {short(value)}")
        leases = tuple(Int().pack(lease, buffers) for lease in value)
        if len(set(leases)) != len(leases):
            raise ProtocolError("must not name a lease twice")
        return leases

    unpack = pack


@dataclass(frozen=True, slots=True)
class WeightsVersion:
    def pack(self, value: Any, buffers: Buffers) -> Version:
        if not isinstance(value, tuple) or len(value) != 2:
            raise ProtocolError(f"must be (generation, step), got {short(value)}")
        return Version(Int().pack(value[0], buffers), Int().pack(value[1], buffers))

    unpack = pack


@dataclass(frozen=True, slots=True)
class Mask:
    """Bits as bytes, at most one per position of the largest chunk; the message checks their number."""

    def pack(self, value: Any, buffers: Buffers) -> bytes:
        if type(value) is not bytes or len(value) > (buffers.limits.max_chunk + 7) // 8:
            raise ProtocolError(f"must be the bytes of a bit mask, got {short(value)}")
        return value

    unpack = pack


@dataclass(frozen=True, slots=True)
class Maybe:
    """None, which travels as nil, or what the other codec says."""

    codec: Codec

    def pack(self, value: Any, buffers: Buffers) -> object:
        return None if value is None else self.codec.pack(value, buffers)

    def unpack(self, value: Any, buffers: Buffers) -> Any:
        return None if value is None else self.codec.unpack(value, buffers)


Natural = Annotated[int, Int()]
Random = Annotated[int, Int(0, (1 << 64) - 1)]
Seconds = Annotated[float, Real(0.0, 1e9)]
Label = Annotated[str, Name()]
Prose = Annotated[str, Text()]
Leases = Annotated[tuple[int, ...], LeaseIds()]
At = Annotated[Version, WeightsVersion()]
AtOrNone = Annotated[Version | None, Maybe(WeightsVersion())]
