"""A weights version on its way in: windows, checks, complete or nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from common import buckets
from common.errors import ProtocolError
from common.protocol import Weights
from scorer.staging import Transfer
from tests.scorer.versions import BUCKET, MANIFEST, content, empty, messages, spoilt, version


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", BUCKET)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 320, 1000])
def test_a_version_arrives_whole_or_not_at_all(size: int) -> None:
    transfer = Transfer(version(3), empty())
    *first, last = messages(3, size)
    for message in first:
        assert transfer.receive(message) is None
    staged = transfer.receive(last)
    assert staged is not None
    assert (staged.version, staged.manifest, staged.flat.tobytes()) == (version(3), MANIFEST, content(3, size))


def test_a_staging_buffer_of_the_right_size_is_filled_in_place() -> None:
    buffer = np.empty(320, dtype=np.uint8)
    transfer = Transfer(version(3), buffer)
    staged = [transfer.receive(message) for message in messages(3)][-1]
    assert staged is not None
    assert staged.flat is buffer


@pytest.mark.parametrize(
    ("index", "spoil", "says"),
    [
        (2, spoilt, r"checksum of bucket 2 of \(7, 3\) is wrong"),
        (2, lambda one: replace(one, buffer=bytes(one.buffer)[:-1]), "bucket 2 has 63 bytes, not 64"),
        (2, lambda one: replace(one, bucket=3), "bucket 3 where 2 was due"),
        (2, lambda one: replace(one, bucket=1), "bucket 1 where 2 was due"),
        (0, lambda one: replace(one, bucket=1, manifest=None), "bucket 1 where 0 was due"),
        (1, lambda one: replace(one, num_buckets=4), "bucket 1"),
    ],
)
def test_a_bucket_that_does_not_belong_is_refused(index: int, spoil: Callable[[Weights], Weights], says: str) -> None:
    transfer = Transfer(version(3), empty())
    every = messages(3)
    for message in every[:index]:
        transfer.receive(message)
    with pytest.raises(ProtocolError, match=says):
        transfer.receive(spoil(every[index]))


def test_a_transfer_asks_for_a_window_and_then_keeps_less_than_two_windows_under_way() -> None:
    transfer = Transfer(version(3), empty())
    every, asked = messages(3, 5 * buckets.WINDOW * BUCKET), list(range(buckets.WINDOW))
    assert transfer.next_window() == (0, buckets.WINDOW)
    assert transfer.next_window() is None
    for message in every:
        transfer.receive(message)
        while (window := transfer.next_window()) is not None:
            asked += range(window[0], sum(window))
        assert len(asked) - transfer.received < 2 * buckets.WINDOW
    assert asked == list(range(len(every)))


def test_a_version_smaller_than_a_window_is_asked_for_once() -> None:
    transfer = Transfer(version(3), empty())
    assert transfer.next_window() == (0, buckets.WINDOW)
    for message in messages(3):
        transfer.receive(message)
        assert transfer.next_window() is None
