"""Nothing that arrives raises anything unexpected, nor takes much memory."""

import random
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from common.errors import ProtocolError
from common.protocol import MAGIC, TAG_BYTES, Message, Version, Weights, decode, encode
from common.protocol.messages import MESSAGE_TYPES
from tests.common.protocol.strategies import MIB, STRATEGIES, any_message, decode_or_refuse, flat, randoms

msgpack_values = st.recursive(
    st.none() | st.booleans() | randoms | st.integers(-(2**63), -1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(any_message, st.integers(0, 2**32))
def test_flipped_bits_give_a_message_or_a_protocol_error(message: Message, seed: int):
    draw = random.Random(seed)
    frames = flat(message)
    for _ in range(30):
        damaged = list(frames)
        for _ in range(draw.randint(1, 3)):
            which = draw.choice([i for i, frame in enumerate(frames) if frame])
            frame = bytearray(damaged[which])
            frame[draw.randrange(len(frame))] ^= 1 << draw.randrange(8)
            damaged[which] = bytes(frame)
        received = decode_or_refuse(damaged)
        if received is not None and type(received) in STRATEGIES:
            assert flat(decode(encode(received))) == flat(received)  # whatever passes is a message we could send


@settings(max_examples=100, deadline=None)
@given(any_message, st.data())
def test_a_truncated_frame_is_refused(message: Message, data: st.DataObject):
    frames = flat(message)
    cuts = [(i, n) for i, frame in enumerate(frames) for n in range(len(frame))]
    for which, length in data.draw(st.lists(st.sampled_from(cuts), min_size=10, max_size=10)):
        with pytest.raises(ProtocolError):
            decode([*frames[:which], frames[which][:length], *frames[which + 1 :]])


@settings(max_examples=100, deadline=None)
@given(any_message, st.binary(max_size=9).map(lambda data: b"\x00" + data))  # no array, so no foreign HELLO either
def test_missing_extra_repeated_and_lengthened_frames_are_refused(message: Message, junk: bytes):
    frames = flat(message)
    wrong = [frames[:i] + frames[i + 1 :] for i in range(len(frames))]
    wrong += [[*frames[:i], junk, *frames[i:]] for i in range(len(frames) + 1)]
    wrong += [[*frames, b""], [], frames * 9]
    wrong += [[*frames[:i], frame + junk, *frames[i + 1 :]] for i, frame in enumerate(frames)]
    for attempt in wrong:
        assert decode_or_refuse(attempt) is None, attempt


@settings(max_examples=100, deadline=None)
@given(any_message)
def test_missing_and_extra_fields_are_refused(message: Message):
    head, *buffers = flat(message)
    tag, values = head[:TAG_BYTES], msgpack.decode(head[TAG_BYTES:])
    for wrong in (values[:-1], [*values, None], [*values, 0], [], values[0], {str(i): v for i, v in enumerate(values)}):
        with pytest.raises(ProtocolError):
            decode([tag + msgpack.encode(wrong), *buffers])


@settings(max_examples=80, deadline=None)
@given(any_message, st.data())
def test_a_field_of_any_other_value_gives_a_message_or_a_protocol_error(message: Message, data: st.DataObject):
    head, *buffers = flat(message)
    tag, values = head[:TAG_BYTES], msgpack.decode(head[TAG_BYTES:])
    for value in data.draw(st.lists(msgpack_values, min_size=8, max_size=8)):
        which = data.draw(st.integers(0, len(values) - 1))
        decode_or_refuse([tag + msgpack.encode([*values[:which], value, *values[which + 1 :]]), *buffers])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(range(1, len(MESSAGE_TYPES) + 2)),
    st.binary(max_size=80),
    st.lists(st.binary(max_size=20), max_size=4),
)
def test_random_bytes_behind_a_right_tag_give_a_message_or_a_protocol_error(code: int, header: bytes, buffers: list):
    decode_or_refuse([MAGIC + bytes([code]) + header, *buffers])
    decode_or_refuse([header, MAGIC + bytes([code]), *buffers])


def test_ten_thousand_random_messages_of_other_makers_are_refused():
    draw = random.Random(0)
    for _ in range(10_000):
        frames = [draw.randbytes(draw.choice((0, 1, 3, 4, 5, 40))) for _ in range(draw.randint(0, 5))]
        assert decode_or_refuse(frames) is None


def nested_arrays(length: int, depth: int) -> bytes:
    return (b"\xdd" + length.to_bytes(4, "big")) * depth


BOMBS = {
    "an array of 2^32 - 1": nested_arrays(2**32 - 1, 1),
    "an array as long as allowed, within itself": nested_arrays(1024, 3000),
    "arrays of 65,536 within themselves": nested_arrays(65_536, 200),
    "a short array, deep within itself": b"\x91" * 16_000,
    "maps within maps": b"\x81" * 16_000,
    "empty arrays": b"\xdc\x03\xff" + b"\x90" * 1023,
    "empty arrays in full rows": b"\x9e" + (b"\xdc\x03\xff" + b"\x90" * 1023) * 14,
    "a string of 2^32 - 1": b"\x91\xdb\xff\xff\xff\xff",
    "bytes of 2^32 - 1": b"\x91\xc6\xff\xff\xff\xff",
    "a map of 2^32 - 1": b"\xdf\xff\xff\xff\xff",
    "an extension of 2^32 - 1": b"\x91\xc9\xff\xff\xff\xff\x01",
    "an empty extension": b"\x91\xc7\x00\x05",
    "a timestamp": msgpack.encode([datetime.fromtimestamp(1, UTC)]),
    "sixteen mebibytes of nil": b"\xdd\x01\x00\x00\x00" + b"\xc0" * (16 * MIB),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_msgpack_bombs_are_refused_in_little_memory(bomb: bytes):
    weights = flat(Weights(Version(0, 0), 0, 1, 0, 0, (), b""))
    for code in range(1, len(MESSAGE_TYPES) + 1):
        attempts = [[MAGIC + bytes([code]) + bomb], [MAGIC + bytes([code]) + b"\x91" + bomb, b""]]
        if MESSAGE_TYPES[code - 1] is Weights:
            many = msgpack.decode(weights[0][TAG_BYTES:])
            many[5] = len(bomb)  # bytes of the manifest
            attempts.append([weights[0][:TAG_BYTES] + msgpack.encode(many), bomb, b""])
        for frames in attempts:
            tracemalloc.start()
            try:
                with pytest.raises(ProtocolError):
                    decode(frames)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 2 * len(frames[0]) + 12 * MIB


@pytest.mark.parametrize("kind", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
def test_a_field_as_large_as_a_header_of_empty_maps_is_refused_in_little_memory(kind: type):
    code, num_fields = MESSAGE_TYPES.index(kind) + 1, len(kind.__struct_fields__)
    frame = MAGIC + bytes([code]) + msgpack.encode([[{}] * 95_000, *[0] * (num_fields - 1)])
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=kind.__struct_fields__[0]):
            decode([frame])
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "frames",
    [None, 7, "ab", b"abcd", {}, [None, None], ["MGS\x01"], [MAGIC + b"\x01", 3], [[b"MGS\x01"], [b""]]],
    ids=repr,
)
def test_things_that_are_no_frames_are_refused(frames: object):
    with pytest.raises(ProtocolError):
        decode(frames)  # type: ignore[arg-type]


def test_a_frame_that_is_not_contiguous_is_refused():
    with pytest.raises(ProtocolError):
        decode([MAGIC + b"\x0a", memoryview(bytes(20))[::2]])
