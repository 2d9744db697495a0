"""Leases: what they ask for, and which are impossible."""

import numpy as np
import pytest
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import MAX_HISTORY, Array, Heartbeat, Return, Version, decode, encode, pack_mask
from tests.common.protocol.examples import HELLO, LEASE, frames_of


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
    if not isinstance(lease.lease, np.generic):
        with pytest.raises(ProtocolError):
            decode(frames_of(lease, 4))


def test_errors_name_the_message_the_field_and_the_value():
    with pytest.raises(ProtocolError, match=r"Lease\.oldest_step: Expected `int` >= 0 \(value -8\)"):
        encode(replace(LEASE, oldest_step=-8))
    with pytest.raises(ProtocolError, match=r"Hello\.precision: .*float32\|bf16\|fp16\|int8.* \(value 'fp8'\)"):
        encode(replace(HELLO, precision="fp8"))


def test_histories_travel_with_their_lease():
    histories = np.full((3, MAX_HISTORY), np.nan, dtype=np.float32)
    histories[1, -2:] = 0.5, 0.25
    lease = replace(LEASE, mask=b"\x07", histories=Array.of(histories))
    received = decode(encode(lease))
    assert received == lease
    np.testing.assert_array_equal(received.histories.as_numpy(), histories, strict=True)


def test_lists_of_leases_are_bounded_and_without_repeats():
    assert decode(encode(Return(tuple(range(1024))))) == Return(tuple(range(1024)))
    for leases in (tuple(range(1025)), (3, 3), (-1,), 1):
        with pytest.raises(ProtocolError):
            encode(Heartbeat(0, None, leases, 0))  # type: ignore[arg-type]
