"""Messages to frames and back: `[MAGIC + type + msgpack header][raw buffers...]`.

Tag and header share a frame, since each frame is work for the I/O threads of both sides. The header is one array of the
message's fields in their order, without names: a lease and its answer cost some 110 bytes. Nothing that arrives is
believed before it is checked, and nothing but plain values is ever built from it.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgpack

from common.errors import ProtocolError
from common.protocol.array_fields import UNPACKING_ERRORS, refuse_extension, unpacker
from common.protocol.fields import Buffers, Codec, Int, flat_bytes
from common.protocol.limits import DEFAULT_LIMITS, MAX_TEXT, PROTOCOL_VERSION, Limits
from common.protocol.messages import MESSAGE_TYPES, Message
from common.protocol.sessions import ForeignHello, Hello
from common.protocol.values import Buffer

MAGIC = b"MGS"
"""The first three bytes of every message, in every protocol version; the type's byte follows."""

TAG_BYTES = len(MAGIC) + 1


def _codecs(message_type: type) -> tuple[tuple[str, Codec], ...]:
    return tuple((field.name, field.type.__metadata__[0]) for field in fields(message_type))  # type: ignore[union-attr]


_FIELDS = {message_type: _codecs(message_type) for message_type in MESSAGE_TYPES}
_TAGS = {message_type: MAGIC + bytes([code]) for code, message_type in enumerate(MESSAGE_TYPES, start=1)}
_BY_TAG = {tag: message_type for message_type, tag in _TAGS.items()}


def encode(message: Message, limits: Limits = DEFAULT_LIMITS) -> list[Buffer]:
    """The frames of a message. Buffers are not copied: they must not change before the frames are sent.

    Texts for people are clipped and made printable; everything else is checked as `decode` will check it.

    Raises:
        ProtocolError: a field that the other side would refuse; the message names it.
    """
    kind = type(message)
    if kind not in _TAGS:
        raise ProtocolError(f"{kind.__name__} is not a message that can be sent")
    buffers = Buffers(limits)
    header = []
    for name, codec in _FIELDS[kind]:
        try:
            header.append(codec.pack(getattr(message, name), buffers))
        except ProtocolError as error:
            raise ProtocolError(f"{kind.__name__}.{name} {error}") from error
    _check_fields(message, limits)
    frames: list[Buffer] = [_TAGS[kind] + msgpack.packb(header), *buffers.frames]
    _check_sizes(frames, limits)
    return frames


def decode(frames: Sequence[Buffer], limits: Limits = DEFAULT_LIMITS) -> Message:
    """The message in these frames; its arrays share their memory.

    A HELLO of another protocol version comes back as ForeignHello, whatever else it holds.

    Raises:
        ProtocolError: anything that is not exactly one well-formed message within the limits. Nothing else is raised.
    """
    frames = _bytes_of(frames, limits)
    _check_sizes(frames, limits)
    head = frames[0]
    kind = _BY_TAG.get(bytes(head[:TAG_BYTES]))
    if kind is None:
        raise ProtocolError(f"the first frame is no message of this protocol: {bytes(head[:16])!r}")
    if kind is Hello and (protocol := _protocol_of(head[TAG_BYTES:])) != PROTOCOL_VERSION:
        return ForeignHello(protocol)
    header = _header_of(head[TAG_BYTES:], limits)
    codecs = _FIELDS[kind]
    if type(header) is not tuple or len(header) != len(codecs):
        got = f"{len(header)} of them" if type(header) is tuple else type(header).__name__
        raise ProtocolError(f"{kind.__name__}: the header is an array of {len(codecs)} fields, got {got}")
    buffers = Buffers(limits, frames[1:])
    values = []
    for (name, codec), value in zip(codecs, header, strict=True):
        try:
            values.append(codec.unpack(value, buffers))
        except ProtocolError as error:
            raise ProtocolError(f"{kind.__name__}.{name} {error}") from error
    if buffers.taken != len(buffers.frames):
        raise ProtocolError(f"{kind.__name__}: header announces {buffers.taken} buffers, got {len(buffers.frames)}")
    message: Message = kind(*values)
    _check_fields(message, limits)
    return message


def _check_fields(message: Any, limits: Limits) -> None:
    if hasattr(message, "check_fields"):
        try:
            message.check_fields(limits)
        except ProtocolError as error:
            raise ProtocolError(f"{type(message).__name__}: {error}") from error


def _bytes_of(frames: Any, limits: Limits) -> list[Buffer]:
    """Flat views on the frames, whatever was given."""
    if not isinstance(frames, (list, tuple)):
        raise ProtocolError(f"a message is a list of frames, got {type(frames).__name__}")
    if not 1 <= len(frames) <= limits.max_frames:
        raise ProtocolError(f"a message has 1 to {limits.max_frames} frames, got {len(frames)}")
    flat: list[Buffer] = []
    for frame in frames:
        own = flat_bytes(frame) if isinstance(frame, (bytes, memoryview)) else None
        if own is None:
            raise ProtocolError(f"a frame is bytes or a contiguous memoryview, got {type(frame).__name__}")
        flat.append(own)
    return flat


def _check_sizes(frames: list[Buffer], limits: Limits) -> None:
    sizes = [len(frame) for frame in frames]
    if len(frames) > limits.max_frames:
        raise ProtocolError(f"a message has at most {limits.max_frames} frames, got {len(frames)}")
    if sizes[0] > TAG_BYTES + limits.max_header_bytes:
        raise ProtocolError(f"a header has at most {limits.max_header_bytes} bytes, got {sizes[0] - TAG_BYTES}")
    if max(sizes) > limits.max_frame_bytes or sum(sizes) > limits.max_total_bytes:
        raise ProtocolError(
            f"a frame has at most {limits.max_frame_bytes} bytes and a message {limits.max_total_bytes}, "
            f"got {max(sizes)} and {sum(sizes)}"
        )


def _header_of(frame: Buffer, limits: Limits) -> Any:
    try:
        return msgpack.unpackb(
            frame,
            raw=False,
            use_list=False,
            strict_map_key=True,
            ext_hook=refuse_extension,
            max_str_len=4 * MAX_TEXT,
            max_bin_len=(limits.max_chunk + 7) // 8,
            max_array_len=max(limits.max_leases, 32),
            max_map_len=0,
            max_ext_len=0,
        )
    except UNPACKING_ERRORS as error:
        raise ProtocolError(f"the header is not msgpack within the limits: {error!r:.200}") from error


def _protocol_of(frame: Buffer) -> int:
    """The protocol number at the front of a HELLO, without reading what follows it."""
    reader = unpacker(frame, max_array_len=256)
    try:
        if reader.read_array_header() < 1:
            raise ProtocolError("Hello: the header is empty")
        return Int().unpack(reader.unpack(), Buffers(DEFAULT_LIMITS))
    except UNPACKING_ERRORS as error:
        raise ProtocolError(f"Hello: the header has no protocol number: {error!r:.200}") from error
