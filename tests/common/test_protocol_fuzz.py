"""The wire under generated messages: what is sent comes back, and nothing that arrives raises anything unexpected."""

import random
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.protocol import (
    BACKENDS,
    DTYPE_BYTES,
    ERRORS,
    FINGERPRINTS,
    MAGIC,
    MAX_HISTORY,
    PRECISIONS,
    PROTOCOL_VERSION,
    REJECTIONS,
    SCORES,
    TAG_BYTES,
    TRANSFERS,
    WIRES,
    Array,
    Candidates,
    Error,
    Feedback,
    Fetch,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Limits,
    Message,
    PredictorState,
    Reject,
    Return,
    Revoke,
    TensorSpec,
    Version,
    VersionHint,
    Weights,
    WeightsGone,
    Welcome,
    decode,
    encode,
    pack_mask,
)
from common.protocol.messages import MESSAGE_TYPES

MIB = 1 << 20

naturals = st.integers(0, 2**63 - 1)
numbers = st.integers(1, 2**63 - 1)
randoms = st.integers(0, 2**64 - 1)
seconds = st.floats(0, 1e9)
reals = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=20)
texts = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" \n"), max_size=40)
versions = st.builds(Version, naturals, naturals)
leases = st.lists(naturals, max_size=5, unique=True).map(tuple)


def masks(num: int) -> st.SearchStrategy[bytes]:
    flags = st.lists(st.booleans(), min_size=num, max_size=num)
    return st.just(b"") | flags.map(lambda bits: pack_mask(np.array(bits, dtype=bool)))


def arrays(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    num_bytes = int(np.prod(shape)) * DTYPE_BYTES[dtype]
    return st.binary(min_size=num_bytes, max_size=num_bytes).map(lambda data: Array(dtype, shape, data))


def histories(num: int) -> st.SearchStrategy[Array]:
    """(num, 1 to MAX_HISTORY) float32 without infinities: a pattern repeated, since every number alone costs a draw."""
    losses = st.lists(st.floats(width=32, allow_infinity=False), min_size=1, max_size=5)
    lengths = st.integers(1, MAX_HISTORY)
    return st.builds(lambda row, length: Array.of(np.resize(np.float32(row), (num, length))), losses, lengths)


@st.composite
def feedback_messages(draw: Callable) -> Feedback:
    ids = draw(st.lists(naturals, max_size=6))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    losses = draw(st.lists(finite, min_size=len(ids), max_size=len(ids)))
    return Feedback(Array.of(np.int64(ids)), Array.of(np.float32(losses)), draw(histories(len(ids))))


@st.composite
def lease_messages(draw: Callable) -> Lease:
    num = draw(st.integers(1, 40))
    start = draw(st.integers(0, 2**63 - 1 - num))
    made = Lease(draw(naturals), draw(naturals), start, start + num, draw(masks(num)), draw(naturals), draw(seconds))
    return replace(made, histories=draw(st.none() | histories(made.num)))


@st.composite
def candidates_messages(draw: Callable) -> Candidates:
    num = draw(st.integers(0, 20))
    scores = draw(st.lists(arrays("float32", (num,)), max_size=len(SCORES)).map(tuple))
    rows = inputs = targets = None
    if draw(st.booleans()):
        rows = draw(st.none() | st.integers(0, num).flatmap(lambda k: arrays("int32", (k,))))
        shape = (rows.shape[0] if rows else num, *draw(st.lists(st.integers(0, 3), max_size=3)))
        inputs = draw(st.sampled_from(sorted(DTYPE_BYTES)).flatmap(lambda dtype: arrays(dtype, shape)))
        targets = draw(arrays("int64", shape[:1]))
    errors = features = None
    if draw(st.booleans()):
        errors, features = (draw(arrays("float16", (num, draw(st.integers(1, 3))))) for _ in range(2))
    mean, accuracy = draw(st.none() | reals), draw(st.none() | st.floats(0, 1))
    tau = draw(st.none() | st.floats(0, allow_infinity=False))
    timings = draw(seconds), draw(seconds)
    dropped = draw(masks(num))
    return Candidates(
        *(draw(naturals), draw(versions), num, dropped, scores, mean, accuracy, *timings),
        *(rows, inputs, targets, tau, errors, features),
    )


@st.composite
def weights_messages(draw: Callable) -> Weights:
    bucket = draw(st.integers(0, 3))
    specs = st.builds(
        TensorSpec, names, st.sampled_from(sorted(DTYPE_BYTES)), st.lists(st.integers(0, 9), max_size=4).map(tuple)
    )
    manifest = None if bucket else draw(st.lists(specs, max_size=5, unique_by=lambda spec: spec.name).map(tuple))
    buffer = draw(st.binary(max_size=30))
    total = max(sum(spec.nbytes for spec in manifest or ()), len(buffer)) + draw(st.integers(0, 1000))
    crc32 = draw(st.integers(0, 2**32 - 1))
    return Weights(draw(versions), bucket, draw(st.integers(bucket + 1, 9)), total, crc32, manifest, buffer)


@st.composite
def welcome_messages(draw: Callable) -> Welcome:
    transfer = draw(st.sampled_from(TRANSFERS))
    return Welcome(
        session=draw(randoms),
        generation=draw(naturals),
        seed=draw(randoms),
        num_samples=draw(naturals),
        chunk_size=draw(st.integers(1, 65536)),
        scores=draw(st.lists(st.sampled_from(SCORES), unique=True).map(tuple)),
        transfer=transfer,
        best_k=draw(st.none() | numbers) if transfer == "payload" else None,
        lowest_is_hard=draw(st.booleans()),
        wire=draw(st.sampled_from(WIRES)),
        weights_port=draw(st.integers(0, 65535)),
        version=draw(st.none() | versions),
        heartbeat_s=draw(seconds),
        silence_s=draw(seconds),
        embeddings=draw(st.booleans()),
    )


STRATEGIES: dict[type, st.SearchStrategy] = {
    Hello: st.builds(
        Hello,
        protocol=st.just(PROTOCOL_VERSION),
        run=names,
        name=names,
        incarnation=randoms,
        device=names,
        precision=st.sampled_from(PRECISIONS),
        backend=st.sampled_from(BACKENDS),
        fingerprint=st.dictionaries(st.sampled_from(FINGERPRINTS), names),
        num_samples=naturals,
        num_classes=naturals,
    ),
    Welcome: welcome_messages(),
    Reject: st.builds(Reject, st.sampled_from(REJECTIONS), texts),
    Lease: lease_messages(),
    Candidates: candidates_messages(),
    VersionHint: st.builds(VersionHint, versions, naturals),
    Fetch: st.builds(Fetch, randoms, versions, st.integers(0, 1000), st.integers(1, 1000)),
    Weights: weights_messages(),
    WeightsGone: st.builds(WeightsGone, versions, st.none() | versions),
    Revoke: st.builds(Revoke, leases),
    Return: st.builds(Return, leases),
    Goodbye: st.builds(Goodbye, texts),
    Heartbeat: st.builds(Heartbeat, naturals, st.none() | versions, leases, naturals),
    Error: st.builds(Error, st.sampled_from(ERRORS), texts),
    Feedback: feedback_messages(),
    PredictorState: st.builds(
        PredictorState,
        naturals,
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9).map(
            lambda parameters: np.float32(parameters).tobytes()
        ),
    ),
}
any_message = st.one_of(*STRATEGIES.values())
msgpack_values = st.recursive(
    st.none() | st.booleans() | randoms | st.integers(-(2**63), -1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def decode_or_refuse(frames: object, limits: Limits | None = None) -> Message | None:
    """The message, or None where it was refused as it should be. Any other exception fails the test."""
    try:
        return decode(frames) if limits is None else decode(frames, limits)  # type: ignore[arg-type]
    except ProtocolError:
        return None


def flat(message: Message) -> list[bytes]:
    return [bytes(frame) for frame in encode(message)]


def test_every_message_type_is_generated_here():
    assert set(STRATEGIES) == set(MESSAGE_TYPES)


@pytest.mark.parametrize("kind", STRATEGIES, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_equal(kind: type):
    @settings(max_examples=60, deadline=None)
    @given(STRATEGIES[kind])
    def round_trip(message: Message) -> None:
        frames = encode(message)
        assert decode(frames) == message
        received = decode([memoryview(bytes(frame)) for frame in frames])
        assert received == message
        assert type(received) is kind
        assert flat(received) == flat(message)

    round_trip()


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
    tag, values = head[:TAG_BYTES], msgpack.unpackb(head[TAG_BYTES:])
    for wrong in (values[:-1], [*values, None], [*values, 0], [], values[0], {str(i): v for i, v in enumerate(values)}):
        with pytest.raises(ProtocolError):
            decode([tag + msgpack.packb(wrong), *buffers])


@settings(max_examples=80, deadline=None)
@given(any_message, st.data())
def test_a_field_of_any_other_value_gives_a_message_or_a_protocol_error(message: Message, data: st.DataObject):
    head, *buffers = flat(message)
    tag, values = head[:TAG_BYTES], msgpack.unpackb(head[TAG_BYTES:])
    for value in data.draw(st.lists(msgpack_values, min_size=8, max_size=8)):
        which = data.draw(st.integers(0, len(values) - 1))
        decode_or_refuse([tag + msgpack.packb([*values[:which], value, *values[which + 1 :]]), *buffers])


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
    "a timestamp": msgpack.packb([msgpack.Timestamp(1, 2)]),
    "sixteen mebibytes of nil": b"\xdd\x01\x00\x00\x00" + b"\xc0" * (16 * MIB),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_msgpack_bombs_are_refused_in_little_memory(bomb: bytes):
    weights = flat(Weights(Version(0, 0), 0, 1, 0, 0, (), b""))
    for code in range(1, len(MESSAGE_TYPES) + 1):
        attempts = [[MAGIC + bytes([code]) + bomb], [MAGIC + bytes([code]) + b"\x91" + bomb, b""]]
        if MESSAGE_TYPES[code - 1] is Weights:
            many = msgpack.unpackb(weights[0][TAG_BYTES:])
            many[5] = 1000  # tensors that the header announces in the manifest
            attempts.append([weights[0][:TAG_BYTES] + msgpack.packb(many), bomb, b""])
        for frames in attempts:
            tracemalloc.start()
            try:
                with pytest.raises(ProtocolError):
                    decode(frames)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 2 * len(frames[0]) + 12 * MIB


@settings(max_examples=60, deadline=None)
@given(any_message, st.sampled_from([field.name for field in fields(Limits)]))
def test_narrower_limits_refuse_or_let_through_what_fits(message: Message, name: str):
    limits = replace(Limits(), **{name: 1})
    received = decode_or_refuse(encode(message), limits)
    assert received is None or received == message
    if name == "max_frames":
        assert (received is None) == (len(encode(message)) > 1)


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
