"""Typed arrays and bit masks, alone and in messages."""

import struct

import numpy as np
import pytest
from msgspec import msgpack
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import DTYPE_BYTES, TAG_BYTES, Array, Candidates, decode, encode, pack_mask, unpack_mask
from common.protocol.limits import INLINE_BYTES
from tests.common.protocol.examples import CANDIDATES, with_payload


def test_large_arrays_are_sent_and_received_without_a_copy():
    inputs = np.resize(np.arange(251, dtype=np.uint8), (6, 1, 32, 32))
    message = replace(with_payload(), inputs=Array.of(inputs))
    frames = encode(message)
    assert any(
        isinstance(frame, memoryview) and np.shares_memory(np.frombuffer(frame, np.uint8), inputs) for frame in frames
    )
    received = decode(frames)
    assert isinstance(received, Candidates)
    assert received.inputs is not None
    assert np.shares_memory(received.inputs.as_numpy(), inputs)
    np.testing.assert_array_equal(received.inputs.as_numpy(), inputs)


@pytest.mark.parametrize(("num_bytes", "num_frames"), [(0, 1), (INLINE_BYTES, 1), (INLINE_BYTES + 1, 2)])
def test_a_small_array_travels_within_the_header_and_a_larger_one_as_a_frame(num_bytes, num_frames):
    one = Array("uint8", (1, num_bytes), bytes(num_bytes))
    message = replace(with_payload([0], 1), inputs=one)
    frames = encode(message)
    assert len(frames) == num_frames
    assert decode(frames) == message


def test_candidates_with_fifteen_small_arrays_and_a_mask_fit_into_one_header():
    num = INLINE_BYTES // 4
    scores = (Array("float32", (num,), bytes(4 * num)),) * 5
    rows = Array("float16", (num, 2), bytes(4 * num))
    others = Array("int32", (num,), bytes(4 * num))
    full = replace(CANDIDATES, num=num, dropped=bytes(num // 8), scores=scores, exact_scores=scores)
    full = replace(full, errors=rows, features=rows, rows=others, inputs=others, targets=others)
    assert len(encode(full)) == 1
    assert decode(encode(full)) == full


@pytest.mark.parametrize("dtype", [name for name in DTYPE_BYTES if name != "bfloat16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)], ids=str)
def test_an_array_of_every_dtype_comes_back_from_numpy(dtype, shape):
    values = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    array = Array.of(values)
    assert (array.dtype, array.shape, array.nbytes) == (dtype, shape, values.size * DTYPE_BYTES[dtype])
    np.testing.assert_array_equal(array.as_numpy(), values, strict=True)


def test_big_endian_and_transposed_arrays_travel_little_endian_and_in_order():
    values = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert bytes(Array.of(values).buffer) == struct.pack("<6f", 0, 3, 1, 4, 2, 5)


def test_dtypes_that_do_not_travel_are_named():
    with pytest.raises(ValueError, match="complex128"):
        Array.of(np.zeros(3, dtype=complex))
    with pytest.raises(ValueError, match="bfloat16"):
        Array("bfloat16", (2,), bytes(4)).as_numpy()


def test_a_bool_array_of_other_bytes_is_refused_when_it_is_read():
    with pytest.raises(ProtocolError, match="0 and 1"):
        Array("bool", (2,), b"\x01\x02").as_numpy()


@pytest.mark.parametrize("num", [0, 1, 7, 8, 9, 128])
def test_masks_put_the_first_flag_into_the_lowest_bit(num):
    flags = np.arange(num) % 3 == 0
    mask = pack_mask(flags)
    assert len(mask) == (num + 7) // 8
    assert [bool(mask[i // 8] >> i % 8 & 1) for i in range(num)] == flags.tolist()
    np.testing.assert_array_equal(unpack_mask(mask, num), flags, strict=True)


def test_shapes_whose_product_lies_are_refused():
    head, *buffers = encode(with_payload())
    assert len(buffers) == 1
    tag, values = head[:TAG_BYTES], msgpack.decode(head[TAG_BYTES:])
    for shape in (
        [6, 2**62, 2**62],
        [6, 0, 2**63],
        [6, -1, -64],
        [6, 1, 32, 31],
        [6] + [1] * 8,
        [6.0, 64],
        384,
        [2**64 - 1],
    ):
        values[10] = ["uint8", shape, None]
        with pytest.raises(ProtocolError, match="inputs"):
            decode([bytes(tag) + msgpack.encode(values), *buffers])


def test_an_array_without_bytes_that_numpy_cannot_hold_is_refused():
    with pytest.raises(ProtocolError, match="passes"):
        encode(replace(with_payload(num=0), num=0, scores=(), inputs=Array("uint8", (0, 2**62), b"")))
