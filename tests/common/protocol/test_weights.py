"""Weights, their manifest, and the messages of the model that predicts losses."""

import numpy as np
import pytest
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import MAX_HISTORY, Array, Feedback, PredictorState, TensorSpec, decode, encode
from tests.common.protocol.examples import WEIGHTS, some_feedback


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
        {"checksum": 2**32},
        {"manifest": (TensorSpec("a", "float32", (2,)),) * 2},
        {"manifest": (TensorSpec("a", "complex64", (2,)),)},
        {"manifest": (TensorSpec("a\n", "int8", (2,)),)},
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
