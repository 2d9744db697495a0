"""A weights version on its way in: windows, checks, complete or nothing, the newest wins."""

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from common import buckets
from common.errors import ProtocolError
from common.protocol import Fetch, TensorSpec, Version, Weights, WeightsGone
from scorer.fetcher import TRANSFER_S, Fetcher
from scorer.staging import StagedWeights, Transfer

BUCKET = 64
MANIFEST = (TensorSpec("w", "uint8", (300,)),)
SESSION = 11


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", BUCKET)


def version(step: int) -> Version:
    return Version(7, step)


def content(step: int, size: int = 320) -> bytes:
    return np.random.default_rng(step).bytes(size)


def messages(step: int, size: int = 320) -> list[Weights]:
    """The buckets of a version as a trainer sends them."""
    data, num = content(step, size), buckets.num_buckets(size)
    made = []
    for bucket in range(num):
        start, stop = buckets.bucket_span(bucket, size)
        part = data[start:stop]
        made.append(
            Weights(version(step), bucket, num, size, buckets.bucket_checksum(part), None if bucket else MANIFEST, part)
        )
    return made


def empty() -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    return np.empty(0, dtype=np.uint8)


class Trainer:
    """Answers fetches as they are asked for, at most a window at a time."""

    def __init__(self) -> None:
        self.asked: list[Fetch] = []
        self.connected = True

    def send(self, fetch: Fetch) -> bool:
        if self.connected:
            self.asked.append(fetch)
        return self.connected

    def serve(self, fetcher: Fetcher, size: int = 320, spoil: Callable[[Weights], Weights] = lambda one: one) -> None:
        """Answer everything that was asked, and what is asked thereupon."""
        while self.asked:
            fetch = self.asked.pop(0)
            every = messages(fetch.version.step, size)
            for message in every[fetch.first_bucket : fetch.first_bucket + fetch.num_buckets]:
                fetcher.receive(spoil(message))


def make_fetcher(trainer: Trainer) -> Fetcher:
    fetcher = Fetcher(trainer.send, lambda message: None)
    fetcher.begin(SESSION)
    return fetcher


# -- one transfer -----------------------------------------------------------------------------------------------------


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


def spoilt(message: Weights) -> Weights:
    return replace(message, buffer=bytes([message.buffer[0] ^ 1]) + bytes(message.buffer[1:]))


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


# -- one after the other ----------------------------------------------------------------------------------------------


def test_a_hint_is_fetched_and_staged() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(1))
    assert trainer.asked == [Fetch(SESSION, version(1), 0, buckets.WINDOW)]
    trainer.serve(fetcher)
    staged = fetcher.take()
    assert staged is not None
    assert staged.flat.tobytes() == content(1)
    assert fetcher.take() is None


def test_newer_hints_while_a_version_is_on_its_way_lead_to_the_newest_and_to_none_between() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    for step in (1, 2, 3):
        fetcher.hint(version(step))
    fetched = []
    while trainer.asked:
        fetched.append(trainer.asked[0].version.step)
        trainer.serve(fetcher)
    assert fetched == [1]
    staged = fetcher.take()
    assert staged is not None
    assert staged.version == version(3), "the staged version was replaced before anybody took it"


def test_an_older_hint_changes_nothing() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(5))
    trainer.serve(fetcher)
    fetcher.hint(version(4))
    fetcher.hint(version(5))
    assert trainer.asked == []


def test_the_version_in_use_is_not_overwritten_by_the_next() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(1))
    trainer.serve(fetcher)
    in_use = fetcher.take()
    assert in_use is not None
    for step in (2, 3):
        fetcher.hint(version(step))
        trainer.serve(fetcher)
        assert in_use.flat.tobytes() == content(1)
    fetcher.give_back(in_use)
    fetcher.hint(version(4))
    trainer.serve(fetcher)
    staged = fetcher.take()
    assert isinstance(staged, StagedWeights)
    assert staged.flat.tobytes() == content(4)


def test_after_a_torn_bucket_the_version_is_asked_for_again_from_its_start() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(1))
    with pytest.raises(ProtocolError, match="checksum"):
        trainer.serve(fetcher, spoil=lambda one: spoilt(one) if one.bucket == 1 else one)
    fetcher.retry()
    assert fetcher.take() is None
    fetcher.receive(messages(1)[2])  # still on its way when the transfer was given up
    trainer.asked.clear()
    fetcher.tick(0.0)
    assert trainer.asked == [Fetch(SESSION, version(1), 0, buckets.WINDOW)]
    trainer.serve(fetcher)
    staged = fetcher.take()
    assert staged is not None
    assert staged.flat.tobytes() == content(1)


def test_what_stops_arriving_is_asked_for_again_over_another_connection_and_ever_more_seldom() -> None:
    trainer, opened = Trainer(), []
    fetcher = Fetcher(trainer.send, lambda message: None, reconnect=lambda: opened.append(len(trainer.asked)))
    fetcher.begin(SESSION)
    fetcher.hint(version(1))
    lost = trainer.asked.pop()
    for patience_s in (TRANSFER_S, 2 * TRANSFER_S):
        fetcher.tick(fetcher._heard_at + patience_s)
        assert trainer.asked == []
        fetcher.tick(fetcher._heard_at + patience_s + 0.1)
        assert (opened, trainer.asked) == ([0], [lost]), "first the connection, then the question"
        trainer.asked.clear()
        opened.clear()
    trainer.asked.append(lost)
    trainer.serve(fetcher)
    fetcher.hint(version(2))
    fetcher.tick(fetcher._heard_at + TRANSFER_S + 0.1)
    assert opened, "what arrives is waited for as at first"


def test_a_connection_that_is_slow_with_every_bucket_gets_a_version_through() -> None:
    trainer, opened = Trainer(), []
    fetcher = Fetcher(trainer.send, lambda message: None, reconnect=lambda: opened.append(1))
    fetcher.begin(SESSION)
    fetcher.hint(version(1))
    fetcher.tick(fetcher._heard_at + 1.5 * TRANSFER_S)
    for bucket in messages(1):
        fetcher.tick(fetcher._heard_at + 1.5 * TRANSFER_S)
        fetcher.receive(bucket)
    staged = fetcher.take()
    assert staged is not None
    assert staged.flat.tobytes() == content(1)
    assert len(opened) == 1


def test_a_version_that_is_gone_leads_to_the_newest() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(1))
    trainer.asked.clear()
    fetcher.gone(WeightsGone(version(1), version(6)))
    assert trainer.asked == [Fetch(SESSION, version(6), 0, buckets.WINDOW)]
    fetcher.gone(WeightsGone(version(1), version(1)))
    assert len(trainer.asked) == 1, "of a transfer that was given up"


def test_without_a_connection_the_next_tick_asks_again() -> None:
    trainer = Trainer()
    trainer.connected = False
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(1))
    trainer.connected = True
    fetcher.tick(0.0)
    trainer.serve(fetcher)
    assert fetcher.take() is not None


def test_a_new_session_forgets_the_versions_of_the_old_one() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(9))
    trainer.serve(fetcher)
    fetcher.begin(SESSION + 1)
    assert fetcher.take() is None
    fetcher.hint(version(2))
    assert trainer.asked == [Fetch(SESSION + 1, version(2), 0, buckets.WINDOW)]


def test_nothing_is_fetched_outside_of_a_session() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.forget()
    fetcher.hint(version(1))
    fetcher.tick(0.0)
    assert trainer.asked == []


def test_a_layout_that_does_not_fit_the_model_is_never_staged() -> None:
    def refuse(message: Weights) -> None:
        raise ProtocolError("weights: another model")

    trainer = Trainer()
    fetcher = Fetcher(trainer.send, refuse)
    fetcher.begin(SESSION)
    fetcher.hint(version(1))
    with pytest.raises(ProtocolError, match="another model"):
        trainer.serve(fetcher)
    assert fetcher.take() is None
