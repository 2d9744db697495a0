"""Which version is fetched, and when: the newest wins, and what does not come is asked for again."""

from collections.abc import Callable

import pytest

from common import buckets
from common.errors import ProtocolError
from common.protocol import Fetch, Weights, WeightsGone
from scorer.fetcher import TRANSFER_S, Fetcher
from scorer.staging import StagedWeights
from tests.scorer.versions import BUCKET, SESSION, content, messages, spoilt, version


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", BUCKET)


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


def hand_over(fetcher: Fetcher, step: int) -> None:
    for message in messages(step):
        fetcher.receive(message)


def test_a_newer_version_is_taken_unasked_and_the_windows_behind_the_first_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scorer.fetcher.WINDOW", 2)
    monkeypatch.setattr("scorer.staging.WINDOW", 2)
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(1))
    trainer.serve(fetcher)
    taken = fetcher.take()
    assert taken is not None
    fetcher.give_back(taken)
    every = messages(2)
    assert len(every) == 5
    fetcher.receive(every[0])
    assert trainer.asked == [Fetch(SESSION, version(2), 2, 2)], "half a window is kept under way"
    fetcher.receive(every[1])
    trainer.serve(fetcher)
    staged = fetcher.take()
    assert staged is not None
    assert staged.flat.tobytes() == content(2)


def test_what_comes_unasked_while_a_version_is_on_its_way_is_fetched_after_it() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(1))
    hand_over(fetcher, 2)
    assert fetcher.staged is None
    assert fetcher.newest == version(2)
    trainer.serve(fetcher)
    staged = fetcher.take()
    assert staged is not None
    assert (staged.version, staged.flat.tobytes()) == (version(2), content(2))


def test_what_comes_unasked_and_is_not_newer_changes_nothing() -> None:
    trainer = Trainer()
    fetcher = make_fetcher(trainer)
    fetcher.hint(version(5))
    trainer.serve(fetcher)
    assert fetcher.take() is not None
    for step in (4, 5):
        hand_over(fetcher, step)
    assert fetcher.take() is None


def test_nothing_is_taken_unasked_outside_of_a_session() -> None:
    fetcher = make_fetcher(Trainer())
    fetcher.forget()
    hand_over(fetcher, 1)
    assert fetcher.take() is None


def test_what_began_unasked_and_stops_is_asked_for_over_another_connection() -> None:
    trainer, opened = Trainer(), []
    fetcher = Fetcher(trainer.send, lambda message: None, reconnect=lambda: opened.append(1))
    fetcher.begin(SESSION)
    fetcher.receive(messages(1)[0])
    fetcher.tick(fetcher._heard_at + TRANSFER_S + 0.1)
    assert (opened, trainer.asked) == ([1], [Fetch(SESSION, version(1), 0, buckets.WINDOW)])


def test_what_came_unasked_and_was_torn_is_asked_for_over_another_connection() -> None:
    trainer, opened = Trainer(), []
    fetcher = Fetcher(trainer.send, lambda message: None, reconnect=lambda: opened.append(len(trainer.asked)))
    fetcher.begin(SESSION)
    with pytest.raises(ProtocolError, match="checksum"):
        fetcher.receive(spoilt(messages(1)[0]))
    fetcher.retry()
    fetcher.tick(fetcher._heard_at)
    assert (opened, trainer.asked) == ([0], [Fetch(SESSION, version(1), 0, buckets.WINDOW)])
