"""What each message promises, by example; test_protocol_fuzz.py has the generated ones."""

import ast
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest

import common.protocol
from common.errors import ProtocolError
from common.protocol import (
    DTYPE_BYTES,
    MAGIC,
    MAX_HISTORY,
    MAX_TEXT,
    PROTOCOL_VERSION,
    TAG_BYTES,
    Array,
    Candidates,
    Error,
    Feedback,
    ForeignHello,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Limits,
    PredictorState,
    Reject,
    Return,
    TensorSpec,
    Version,
    Weights,
    Welcome,
    decode,
    encode,
    pack_mask,
    unpack_mask,
)

HELLO = Hello(
    PROTOCOL_VERSION, "run", "host:12", 2**64 - 1, "cpu", "float32", "torch", {"model": "ab", "data": "cd"}, 1797, 10
)
WELCOME = Welcome(7, 3, 0, 50_000, 128, ("mms",), "reference", None, True, "float32", 0, Version(3, 0), 1.0, 10.0)
LEASE = Lease(lease=12_345, generation=3, start=1000, stop=1006, mask=b"", oldest_step=40, deadline_s=60)
CANDIDATES = Candidates(
    lease=12_345,
    version=Version(3, 41),
    num=6,
    dropped=b"",
    scores=(Array.of(np.arange(6, dtype=np.float32)),),
    loss_mean=0.5,
    accuracy=0.25,
    read_s=0.01,
    score_s=0.02,
)
WEIGHTS = Weights(
    Version(3, 41), 0, 2, 40, 2**32 - 1, (TensorSpec("a", "float32", (2, 3)), TensorSpec("n", "int64", ())), b"x" * 20
)


def with_payload(rows: list[int] | None = None, num: int = 6) -> Candidates:
    return replace(
        CANDIDATES,
        rows=None if rows is None else Array.of(np.array(rows, dtype=np.int32)),
        inputs=Array.of(np.zeros((num, 1, 8, 8), dtype=np.uint8)),
        targets=Array.of(np.zeros(num, dtype=np.int64)),
    )


def with_embeddings(errors: object = None, features: object = None, **changes: object) -> Candidates:
    """Six rows of three classes and of five features, where nothing else is told."""
    made = {
        "errors": np.zeros((6, 3), dtype=np.float16) if errors is None else errors,
        "features": np.ones((6, 5), dtype=np.float16) if features is None else features,
    }
    return replace(CANDIDATES, **{name: Array.of(array) for name, array in made.items()}, **changes)


def some_feedback(**changes: Array) -> Feedback:
    histories = np.full((3, 10), np.nan, dtype=np.float32)
    return replace(Feedback.of(np.array([7, 0, 41]), np.array([0.5, 0.25, 1.0]), histories), **changes)


def frames_of(header: object, code: int) -> list[bytes | memoryview]:
    return [MAGIC + bytes([code]) + msgpack.packb(header)]


# ---- sizes


@pytest.mark.parametrize("mask", [b"", pack_mask(np.ones(128, dtype=bool))], ids=["all wanted", "masked"])
def test_640_candidates_by_reference_cost_at_most_16_bytes_each_in_both_directions(mask):
    total = 0
    for chunk in range(5):
        start = 10**12 + 128 * chunk
        lease = Lease(10**9 + chunk, 1000, start, start + 128, mask, 10**7, 60.0)
        scores = (Array.of(np.full(128, 0.1, dtype=np.float32)),)
        answer = Candidates(lease.lease, Version(1000, 10**7), 128, b"", scores, 0.1, 0.2, 0.3, 0.4)
        sizes = [[len(frame) for frame in encode(message)] for message in (lease, answer)]
        assert sizes[0][0] + sizes[1][0] < 120 + len(mask)
        total += sum(sizes[0] + sizes[1])
    assert total / 640 <= 16


def test_arrays_are_sent_and_received_without_a_copy():
    inputs = np.arange(6 * 64, dtype=np.uint8).reshape(6, 1, 8, 8)
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


# ---- arrays and masks


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
    tag, values = head[:TAG_BYTES], msgpack.unpackb(head[TAG_BYTES:])
    for shape in (
        [6, 2**62, 2**62],
        [6, 0, 2**63],
        [6, -1, -64],
        [6, 1, 8, 7],
        [6] + [1] * 8,
        [6.0, 64],
        384,
        [2**64 - 1],
    ):
        values[10] = ["uint8", shape]
        with pytest.raises(ProtocolError, match="inputs"):
            decode([bytes(tag) + msgpack.packb(values), *buffers])


def test_an_array_without_bytes_that_numpy_cannot_hold_is_refused():
    with pytest.raises(ProtocolError, match="passes"):
        encode(replace(with_payload(num=0), num=0, scores=(), inputs=Array("uint8", (0, 2**62), b"")))


# ---- messages


def test_versions_order_by_generation_then_step():
    assert Version(1, 900) < Version(2, 0) < Version(2, 8)


def test_a_lease_lists_the_positions_that_want_a_score():
    assert LEASE.num == 6
    assert LEASE.positions().tolist() == [1000, 1001, 1002, 1003, 1004, 1005]
    masked = replace(LEASE, mask=pack_mask(np.array([0, 1, 0, 0, 1, 1], dtype=bool)))
    assert masked.num == 3
    assert masked.positions().tolist() == [1001, 1004, 1005]
    assert masked.positions().dtype == np.int64


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop": 1000},
        {"stop": 999},
        {"stop": 1000 + 65_537},
        {"start": -1},
        {"stop": 2**63},
        {"mask": b"\x01\x00"},
        {"mask": b"\x40"},
        {"lease": True},
        {"lease": np.int64(4)},
        {"lease": 1.0},
        {"deadline_s": float("nan")},
        {"deadline_s": float("inf")},
        {"deadline_s": -1.0},
        {"oldest_step": None},
        {"mask": "\x01"},
        {"histories": Array.of(np.zeros((5, 10), dtype=np.float32))},
        {"histories": Array.of(np.zeros((6, MAX_HISTORY + 1), dtype=np.float32))},
        {"histories": Array.of(np.zeros((6, 0), dtype=np.float32))},
        {"histories": Array.of(np.zeros((6, 2, 2), dtype=np.float32))},
        {"histories": Array.of(np.zeros((6, 10)))},
        {"histories": Array.of(np.full((6, 10), -np.inf, dtype=np.float32))},
    ],
    ids=str,
)
def test_an_impossible_lease_can_neither_be_sent_nor_received(wrong):
    lease = replace(LEASE, **wrong)
    with pytest.raises(ProtocolError):
        encode(lease)
    values = [getattr(lease, name) for name in Lease.__slots__]
    buffers = []
    if lease.histories is not None:
        values[-1] = (lease.histories.dtype, lease.histories.shape)
        buffers = [lease.histories.buffer]
    if not isinstance(values[0], np.generic):
        with pytest.raises(ProtocolError):
            decode([*frames_of(values, 4), *buffers])


def test_errors_name_the_message_the_field_and_the_value():
    with pytest.raises(ProtocolError, match=r"Lease\.oldest_step must be an int in \[0, .*got -8"):
        encode(replace(LEASE, oldest_step=-8))
    with pytest.raises(ProtocolError, match=r"Hello\.precision must be one of float32, bf16, fp16, int8, got 'fp8'"):
        encode(replace(HELLO, precision="fp8"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss_mean": float("nan")},
        {"loss_mean": float("inf")},
        {"accuracy": float("nan")},
        {"accuracy": 1.5},
        {"num": 7},
        {"num": 65_537},
        {"dropped": b"\x40"},
        {"dropped": b"\x00\x00"},
        {"scores": (Array.of(np.zeros(6)),)},
        {"scores": (Array.of(np.zeros(5, dtype=np.float32)),)},
        {"scores": (Array.of(np.zeros((6, 1), dtype=np.float32)),)},
        {"scores": CANDIDATES.scores * 6},
        {"inputs": Array.of(np.zeros((6, 2)))},
        {"rows": Array.of(np.zeros(2, dtype=np.int32))},
        {"inputs": Array.of(np.zeros((5, 2))), "targets": Array.of(np.zeros(5))},
        {"inputs": Array.of(np.zeros(())), "targets": Array.of(np.zeros(6))},
        {"inputs": Array("uint8", (6, 2), bytes(11)), "targets": Array.of(np.zeros(6))},
        {"tau": -0.1},
        {"tau": float("nan")},
        {"errors": Array.of(np.zeros((6, 3), dtype=np.float16))},
        {"features": Array.of(np.zeros((6, 3), dtype=np.float16))},
        {"errors": Array.of(np.zeros((6, 3))), "features": Array.of(np.zeros((6, 3)))},
        {name: Array.of(np.zeros((5, 3), dtype=np.float16)) for name in ("errors", "features")},
        {name: Array.of(np.zeros((6, 0), dtype=np.float16)) for name in ("errors", "features")},
        {name: Array.of(np.zeros((6, 3, 1), dtype=np.float16)) for name in ("errors", "features")},
    ],
    ids=[
        *(
            "NaN loss",
            "infinite loss",
            "NaN accuracy",
            "accuracy",
            "num",
            "chunk",
            "bits past the end",
            "long mask",
            "float64 scores",
        ),
        *("few scores", "2-D scores", "six scores", "no targets", "rows alone", "5 of 6", "0-D", "short buffer"),
        *("negative tau", "NaN tau", "errors alone", "features alone", "float64 embeddings", "5 of 6 embeddings"),
        *("no columns", "3-D embeddings"),
    ],
)
def test_candidates_that_contradict_themselves_cannot_be_sent(wrong):
    with pytest.raises(ProtocolError):
        encode(replace(CANDIDATES, **wrong))


def test_good_candidates_pass_the_check_against_their_lease():
    CANDIDATES.check(LEASE, WELCOME)
    with_payload().check(LEASE, replace(WELCOME, transfer="payload"))
    with_payload([4, 0], 2).check(LEASE, replace(WELCOME, transfer="payload", best_k=2))
    masked = replace(LEASE, stop=1008, mask=b"\x7e")
    CANDIDATES.check(masked, WELCOME)


EMBEDDINGS = replace(WELCOME, embeddings=True)


def test_embeddings_come_where_they_are_wanted_and_only_there():
    with_embeddings().check(LEASE, EMBEDDINGS)
    with pytest.raises(ProtocolError, match="embeddings are not wanted, got some"):
        with_embeddings().check(LEASE, WELCOME)
    with pytest.raises(ProtocolError, match="embeddings are wanted, got none"):
        CANDIDATES.check(LEASE, EMBEDDINGS)
    received = decode(encode(with_embeddings(tau=1.5)))
    assert isinstance(received, Candidates)
    assert received == with_embeddings(tau=1.5)
    assert received.features is not None
    assert received.features.as_numpy().dtype == np.float16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["errors", "features"])
def test_embeddings_must_be_finite_or_their_rows_listed_as_dropped(name, bad):
    rows = np.zeros((6, 4), dtype=np.float16)
    rows[[2, 4], [0, 3]] = bad
    candidates = with_embeddings(**{name: rows}, dropped=pack_mask(np.arange(6) == 2))
    with pytest.raises(ProtocolError, match=f"1 rows of {name} are not finite"):
        candidates.check(LEASE, EMBEDDINGS)
    replace(candidates, dropped=b"\x14").check(LEASE, EMBEDDINGS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite_or_listed_as_dropped(bad):
    scores = np.arange(6, dtype=np.float32)
    scores[2] = bad
    candidates = replace(CANDIDATES, scores=(Array.of(scores),))
    with pytest.raises(ProtocolError, match="1 scores mms are not finite"):
        candidates.check(LEASE, WELCOME)
    listed = replace(candidates, dropped=pack_mask(np.arange(6) == 2))
    listed.check(LEASE, WELCOME)
    np.testing.assert_array_equal(listed.finite_scores()[0], np.float32([0, 1, np.nan, 3, 4, 5]), strict=True)
    assert listed.dropped_flags().tolist() == [False, False, True, False, False, False]


PAYLOAD = replace(WELCOME, transfer="payload")
BEST_2 = replace(PAYLOAD, best_k=2)


@pytest.mark.parametrize(
    ("candidates", "lease", "welcome"),
    [
        (CANDIDATES, replace(LEASE, lease=1), WELCOME),
        (CANDIDATES, replace(LEASE, generation=2), WELCOME),
        (CANDIDATES, replace(LEASE, stop=1007), WELCOME),
        (CANDIDATES, replace(LEASE, mask=b"\x1f"), WELCOME),
        (CANDIDATES, LEASE, replace(WELCOME, scores=("mms", "loss"))),
        (CANDIDATES, LEASE, PAYLOAD),
        (with_payload(), LEASE, WELCOME),
        (with_payload(), LEASE, BEST_2),
        (with_payload([0, 1], 2), LEASE, PAYLOAD),
        (with_payload([0, 1, 2], 3), LEASE, BEST_2),
        (with_payload([1, 1], 2), LEASE, BEST_2),
        (with_payload([0, 6], 2), LEASE, BEST_2),
        (with_payload([-1, 0], 2), LEASE, BEST_2),
        (replace(with_payload([3, 0], 2), dropped=b"\x01"), LEASE, BEST_2),
    ],
    ids=[
        *("lease", "generation", "one too few", "one too many", "scores", "no payload", "payload unasked"),
        *("all for best", "best for all", "too many rows", "repeated", "past the end", "negative", "dropped row"),
    ],
)
def test_an_answer_that_does_not_fit_its_lease_is_refused(candidates, lease, welcome):
    encode(candidates)  # well-formed, only wrong
    with pytest.raises(ProtocolError):
        candidates.check(lease, welcome)


def test_a_chunk_without_a_wanted_position_is_answered_by_no_candidates():
    lease = replace(LEASE, mask=b"\x00")
    empty = replace(CANDIDATES, num=0, scores=(Array("float32", (0,), b""),), loss_mean=None, accuracy=None)
    received = decode(encode(empty))
    assert received == empty
    received.check(lease, WELCOME)
    assert lease.positions().shape == (0,)


def test_weights_bring_their_manifest_in_bucket_0_and_only_there():
    assert decode(encode(WEIGHTS)) == WEIGHTS
    assert [spec.nbytes for spec in WEIGHTS.manifest or ()] == [24, 8]
    with pytest.raises(ProtocolError, match="manifest"):
        encode(replace(WEIGHTS, bucket=1))
    with pytest.raises(ProtocolError, match="manifest"):
        encode(replace(WEIGHTS, manifest=None))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": 2},
        {"num_buckets": 0},
        {"total_bytes": 31},
        {"total_bytes": 2**40},
        {"buffer": b"x" * 41},
        {"crc32": 2**32},
        {"manifest": (TensorSpec("a", "float32", (2,)),) * 2},
        {"manifest": (TensorSpec("a", "complex64", (2,)),)},
        {"manifest": (TensorSpec("a\n", "int8", (2,)),)},
        {"manifest": (("a", "int8", (2,)),)},
    ],
    ids=str,
)
def test_impossible_weights_cannot_be_sent(wrong):
    with pytest.raises(ProtocolError):
        encode(replace(WEIGHTS, **wrong))


def test_a_manifest_of_ten_thousand_tensors_travels():
    specs = tuple(TensorSpec(f"layer{i}.weight", "bfloat16", (3, 3)) for i in range(10_000))
    message = replace(WEIGHTS, manifest=specs, total_bytes=180_000)
    assert decode(encode(message)) == message


def test_a_manifest_must_end_with_its_last_tensor():
    head, manifest, buffer = encode(WEIGHTS)
    assert decode([head, manifest, buffer]) == WEIGHTS
    for wrong in (bytes(manifest) + b"\x00", bytes(manifest)[:-1], bytes(manifest) * 2, b""):
        with pytest.raises(ProtocolError, match="manifest"):
            decode([head, wrong, buffer])


def test_histories_travel_with_their_lease():
    histories = np.full((3, MAX_HISTORY), np.nan, dtype=np.float32)
    histories[1, -2:] = 0.5, 0.25
    lease = replace(LEASE, mask=b"\x07", histories=Array.of(histories))
    received = decode(encode(lease))
    assert received == lease
    np.testing.assert_array_equal(received.histories.as_numpy(), histories, strict=True)


def test_feedback_holds_the_samples_whose_loss_is_finite():
    losses = np.float32([0.5, np.nan, 0.25, np.inf])
    histories = np.float32([[np.nan, 1], [0, 0], [np.inf, 2], [0, 0]])
    received = decode(encode(Feedback.of(np.array([3, 1, 9, 4], dtype=np.int32), losses, histories)))
    assert isinstance(received, Feedback)
    assert received.num == 2
    np.testing.assert_array_equal(received.ids.as_numpy(), np.int64([3, 9]), strict=True)
    np.testing.assert_array_equal(received.losses.as_numpy(), np.float32([0.5, 0.25]), strict=True)
    np.testing.assert_array_equal(received.histories.as_numpy(), np.float32([[np.nan, 1], [np.nan, 2]]), strict=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"losses": Array.of(np.float32([1, np.nan, 2]))},
        {"losses": Array.of(np.float32([1, np.inf, 2]))},
        {"losses": Array.of(np.float32([1, 2]))},
        {"losses": Array.of(np.zeros(3))},
        {"ids": Array.of(np.array([1, -1, 2]))},
        {"ids": Array.of(np.zeros(3, dtype=np.int32))},
        {"ids": Array.of(np.zeros((3, 1), dtype=np.int64))},
        {"histories": Array.of(np.zeros((2, 10), dtype=np.float32))},
        {"histories": Array.of(np.zeros((3, MAX_HISTORY + 1), dtype=np.float32))},
        {"histories": Array.of(np.full((3, 10), np.inf, dtype=np.float32))},
    ],
    ids=["NaN", "infinite", "few", "float64", "negative", "int32", "2-D", "histories", "long", "infinite history"],
)
def test_impossible_feedback_cannot_be_sent(wrong):
    assert decode(encode(some_feedback()))
    with pytest.raises(ProtocolError):
        encode(some_feedback(**wrong))


def test_a_predictor_s_state_is_finite_float32_within_4_mib():
    state = PredictorState(100, np.arange(1 << 20, dtype=np.float32).tobytes())
    received = decode(encode(state))
    assert received == state
    assert isinstance(received, PredictorState)
    assert received.parameters().tolist() == list(range(1 << 20))
    for wrong in (bytes((1 << 22) + 4), b"", bytes(6), np.float32([1, np.nan]).tobytes(), "text"):
        with pytest.raises(ProtocolError, match="state"):
            encode(PredictorState(100, wrong))
    with pytest.raises(ProtocolError, match="updates"):
        encode(PredictorState(-1, bytes(4)))


def test_a_hello_of_another_protocol_version_shows_its_number_whatever_else_it_holds():
    new = [PROTOCOL_VERSION + 1, {"run": "r", "extra": [1, {"nested": msgpack.Timestamp(1)}]}, "x" * 5000]
    assert decode(frames_of(new, 1)) == ForeignHello(PROTOCOL_VERSION + 1)
    assert decode([*frames_of(new, 1), b"a buffer of the future"]) == ForeignHello(PROTOCOL_VERSION + 1)
    assert decode(frames_of([1, "run", "host", 7], 1)) == ForeignHello(1)
    assert decode(frames_of([0], 1)) == ForeignHello(0)
    assert decode(encode(replace(HELLO, protocol=9))) == ForeignHello(9)
    for wrong in ([-1], ["2"], [True], [None], [], {}, [[2]], 2):
        with pytest.raises(ProtocolError):
            decode(frames_of(wrong, 1))


def test_a_foreign_hello_is_only_received():
    with pytest.raises(ProtocolError, match="ForeignHello"):
        encode(ForeignHello(2))


def test_the_answer_to_a_foreign_hello_has_fixed_bytes():
    assert [bytes(frame) for frame in encode(Reject("protocol", "1, not 2"))] == [
        b"MGS\x03\x92\xa8protocol\xa81, not 2"
    ]


def test_texts_for_people_are_clipped_and_made_printable_before_they_are_sent():
    message = decode(encode(Error("malformed", "line 1\nred \x1b[31m \ud800" + "é" * 5000)))
    assert isinstance(message, Error)
    assert message.text.startswith("line 1\nred ?[31m ?é")
    assert len(message.text) == MAX_TEXT
    with pytest.raises(ProtocolError):
        decode(frames_of(["malformed", "\x1b[31m"], 14))
    with pytest.raises(ProtocolError):
        decode(frames_of(["x" * (MAX_TEXT + 1)], 12))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\x00", "\u202eevil", "x" * 257, b"bytes", 7], ids=repr)
def test_names_that_would_spoil_a_log_are_refused(name):
    with pytest.raises(ProtocolError, match="printable"):
        encode(replace(HELLO, name=name))


def test_unknown_words_are_refused():
    for field, value in {"fingerprint": {"colour": "red"}, "backend": "pickle"}.items():
        with pytest.raises(ProtocolError):
            encode(replace(HELLO, **{field: value}))
    for field, value in {"scores": ("mms", "mms"), "transfer": "shm", "wire": "fp4", "best_k": 3}.items():
        with pytest.raises(ProtocolError):
            encode(replace(WELCOME, **{field: value}))


def test_lists_of_leases_are_bounded_and_without_repeats():
    assert decode(encode(Return(tuple(range(1024))))) == Return(tuple(range(1024)))
    for leases in (tuple(range(1025)), (3, 3), (-1,), [1]):
        with pytest.raises(ProtocolError):
            encode(Heartbeat(0, None, leases, 0))  # type: ignore[arg-type]


def test_frames_and_messages_past_their_size_are_refused_on_both_sides():
    payload = with_payload()
    for limits in (Limits(max_frame_bytes=383), Limits(max_total_bytes=400), Limits(max_frames=3)):
        with pytest.raises(ProtocolError):
            encode(payload, limits)
        with pytest.raises(ProtocolError):
            decode(encode(payload), limits)
    with pytest.raises(ProtocolError, match="header has at most"):
        decode([MAGIC + b"\x0c" + msgpack.packb([""]) + bytes(1 << 14)])


def test_unknown_types_and_other_magic_are_refused():
    for tag in (MAGIC, MAGIC + b"\x00", MAGIC + b"\x11", b"MGT\x01", b""):
        with pytest.raises(ProtocolError, match="first frame"):
            decode([tag + msgpack.packb([""])])


def test_goodbye_works_without_buffers_and_with_memoryviews():
    frames = encode(Goodbye("done"))
    assert decode([memoryview(frame) for frame in frames]) == Goodbye("done")


# ---- source


SOURCES = sorted(Path(common.protocol.__file__).parent.glob("*.py"))
ALLOWED = {"collections", "common", "dataclasses", "io", "math", "msgpack", "numpy", "reprlib", "typing"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_source_neither_unpickles_nor_evaluates_nor_imports_by_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in ALLOWED
        elif isinstance(node, ast.Name):
            assert node.id not in {"eval", "exec", "compile", "__import__", "open", "globals", "setattr"}
        elif isinstance(node, ast.Attribute):
            assert node.attr not in {"load", "loads", "fromfile", "memmap", "eval", "exec", "import_module"}


def test_importing_the_protocol_brings_neither_torch_nor_sockets():
    code = "import sys, common.protocol; print({'torch', 'zmq', 'socket', 'pydantic'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "set()"
