"""What every message is: an array of its fields, beside raw buffers that travel as frames of their own."""

from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

import msgspec

from common.errors import ProtocolError
from common.protocol.arrays import Array, Buffer, flat_bytes
from common.protocol.limits import Limits
from common.protocol.values import Natural

if TYPE_CHECKING:
    Raw = Buffer
else:
    Raw = Natural  # a field whose bytes are a frame: the header holds their number, so that a truncated one shows


MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec raises on bytes that are no msgpack of the type wanted."""


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages. A field's annotation is its type and its bounds, which msgspec checks as it decodes."""

    _arrays: ClassVar[tuple[str, ...]] = ()  # fields that are an Array or None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._arrays = tuple(
            name for name, hint in get_type_hints(cls).items() if hint is Array or Array in get_args(hint)
        )

    def outgoing(self, frames: list[Buffer]) -> dict[str, object]:
        """What the header holds in place of fields, by name; what it does not hold is appended to `frames`."""
        changes: dict[str, object] = {}
        for name in self._arrays:
            array = getattr(self, name)
            if array is not None:
                changes[name] = array.outgoing(name, frames)
        return changes

    def incoming(self, frames: list[Buffer]) -> None:
        """Complete a decoded header; takes what is missing from `frames`.

        Raises:
            ProtocolError: a frame does not fit what the header says of it.
            IndexError: the header asks for more frames.
        """
        for name in self._arrays:
            array = getattr(self, name)
            if array is not None:
                array.incoming(name, frames)

    def check_fields(self, limits: Limits) -> None:
        """Raises ProtocolError for fields that contradict each other or pass the limits."""


def put_raw(name: str, buffer: Buffer, frames: list[Buffer]) -> int:
    """Append the frame of a raw field; what the header says of it."""
    frames.append(flat_bytes(name, buffer))
    return len(frames[-1])


def take_raw(name: str, num_bytes: object, frames: list[Buffer]) -> Buffer:
    """The frame of a raw field, of which the header says this; raises as `incoming`."""
    frame = frames.pop(0)
    if num_bytes != len(frame):
        raise ProtocolError(f"{name}: the header announces {num_bytes} bytes, got {len(frame)}")
    return frame
