"""Messages to frames and back: `[MAGIC + type + msgpack header][raw buffers...]`.

Tag, header and small arrays share a frame, since each frame is work for the I/O threads of both sides. The header is
one array of the message's fields in their order, without names: a lease and its answer cost some 110 bytes beside the
scores. Nothing that arrives is believed before it is checked, and nothing but plain values is ever built from it.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from reprlib import repr as short
from typing import cast

from msgspec import msgpack
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol.arrays import Buffer, flat_bytes
from common.protocol.limits import DEFAULT_LIMITS, PROTOCOL_VERSION, Limits
from common.protocol.messages import MESSAGE_TYPES, Message
from common.protocol.sessions import ForeignHello, Hello
from common.protocol.wire import MALFORMED, Wire

MAGIC = b"MGS"
"""The first three bytes of every message, in every protocol version; the type's byte follows."""

TAG_BYTES = len(MAGIC) + 1

_FAULTS = (ProtocolError, IndexError, *MALFORMED)
_UNSENDABLE = (AttributeError, TypeError, ValueError, OverflowError, RecursionError)
_PATH = re.compile(r"(.*) - at `\$\[(\d+)\](.*)`", re.DOTALL)


def _opening(num_fields: int) -> bytes:
    """How msgpack begins an array of so many: required, since msgspec takes one that lacks fields with defaults."""
    return bytes([0x90 | num_fields]) if num_fields < 16 else b"\xdc" + num_fields.to_bytes(2, "big")


_TAGS = {kind: MAGIC + bytes([code]) for code, kind in enumerate(MESSAGE_TYPES, start=1)}
_KINDS = {tag: (kind, _opening(len(kind.__struct_fields__))) for kind, tag in _TAGS.items()}
# Made here: what msgspec learns of a type at its first use, two threads must not have it learn at the same time.
_DECODERS = {kind: msgpack.Decoder(kind) for kind in (*_TAGS, ForeignHello)}


def encode(message: Message, limits: Limits = DEFAULT_LIMITS) -> list[Buffer]:
    """The frames of a message. Large buffers are not copied: they must not change before the frames are sent.

    Texts for people are clipped and made printable; everything else is checked as `decode` checks it.

    Raises:
        ProtocolError: a field that the other side would refuse; the message names it.
    """
    kind = type(message)
    if not isinstance(message, Wire) or kind not in _TAGS:
        raise ProtocolError(f"{kind.__name__} is not a message that can be sent")
    header = b""
    frames: list[Buffer] = []
    try:
        changes = message.outgoing(frames)
        header = msgpack.encode(replace(message, **changes) if changes else message)
        frames.insert(0, _TAGS[kind] + header)
        _check_sizes(frames, limits)
        _DECODERS[kind].decode(header)
        message.check_fields(limits)
    except (*_FAULTS, *_UNSENDABLE) as error:
        raise ProtocolError(_fault(kind, header, error, message)) from error
    return frames


def decode(frames: Sequence[Buffer], limits: Limits = DEFAULT_LIMITS) -> Message:
    """The message in these frames; its arrays share their memory.

    A HELLO of another protocol version comes back as ForeignHello, whatever else it holds.

    Raises:
        ProtocolError: anything that is not exactly one well-formed message within the limits. Nothing else is raised.
    """
    if not isinstance(frames, (list, tuple)):
        raise ProtocolError(f"a message is a list of frames, got {type(frames).__name__}")
    own = [flat_bytes("a frame", frame) for frame in frames]
    _check_sizes(own, limits)
    head = own.pop(0)
    tag, header = bytes(head[:TAG_BYTES]), head[TAG_BYTES:]
    if tag not in _KINDS:
        raise ProtocolError(f"the first frame is no message of this protocol: {bytes(head[:16])!r}")
    kind, opening = _KINDS[tag]
    try:
        if kind is Hello and (hello := _DECODERS[ForeignHello].decode(header)).protocol != PROTOCOL_VERSION:
            return hello
        if header[: len(opening)] != opening:
            raise ProtocolError(f"the header is an array of {len(kind.__struct_fields__)} fields")
        message = _DECODERS[kind].decode(header)
        message.incoming(own)
        if own:
            raise ProtocolError(f"{len(frames)} frames came, {len(own)} more than the header asks for")
        message.check_fields(limits)
    except _FAULTS as error:
        raise ProtocolError(_fault(kind, header, error)) from error
    return cast(Message, message)


def _check_sizes(frames: list[Buffer], limits: Limits) -> None:
    if not 1 <= len(frames) <= limits.max_frames:
        raise ProtocolError(f"a message has 1 to {limits.max_frames} frames, got {len(frames)}")
    sizes = [len(frame) for frame in frames]
    if sizes[0] > TAG_BYTES + limits.max_header_bytes:
        raise ProtocolError(f"a header has at most {limits.max_header_bytes} bytes, got {sizes[0] - TAG_BYTES}")
    if max(sizes) > limits.max_frame_bytes or sum(sizes) > limits.max_total_bytes:
        raise ProtocolError(
            f"a frame has at most {limits.max_frame_bytes} bytes and a message {limits.max_total_bytes}, "
            f"got {max(sizes)} and {sum(sizes)}"
        )


def _fault(kind: type[Wire], header: Buffer, error: BaseException, sent: Wire | None = None) -> str:
    """What was wrong with a message: its field and value, where they can be told."""
    if isinstance(error, IndexError):
        return f"{kind.__name__}: the header asks for more frames than came"
    names = kind.__struct_fields__
    if found := _PATH.fullmatch(str(error)):
        text, place, rest = found.groups()
        value = "what cannot be read"
        with suppress(TypeError, *MALFORMED):
            value = short(msgpack.decode(header)[int(place)])
        return f"{kind.__name__}.{names[int(place)]}{rest}: {text:.200} (value {value})"
    if sent is not None and not header:  # msgpack has no form for one of the fields
        for name in names:
            try:
                msgpack.encode(getattr(sent, name))
            except _UNSENDABLE:
                return f"{kind.__name__}.{name}: {error} (value {short(getattr(sent, name))})"
    return f"{kind.__name__}: {error!s:.400}"
