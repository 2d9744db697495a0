"""Scorers that begin to fetch weights and do not go on hold up nobody's weights, while they keep in touch."""

import pytest

from common import buckets
from common.protocol import Heartbeat, Version, Weights, WeightsGone
from tests.service.peers import WITHIN_S, receive
from tests.service.test_service_protocol import GENERATION, Trainer


class Fetching:
    """A scorer that has got one bucket of several, and asks for another when it is told to."""

    def __init__(self, trainer: Trainer, version: Version) -> None:
        self._version = version
        self.scorer = trainer.scorer()
        self._welcome = self.scorer.join()
        self.ask(0)
        assert receive(self.scorer.weights, Weights)[1].bucket == 0

    def ask(self, bucket: int) -> None:
        self.scorer.fetch(self._welcome, self._version, first=bucket, num=1)


@pytest.fixture
def _small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 1000)


@pytest.mark.usefixtures("_small_buckets")
def test_pushes_go_on_while_scorers_hold_on_to_different_versions_and_only_send_heartbeats() -> None:
    with Trainer() as trainer:
        holding = [Fetching(trainer, Version(GENERATION, 0))]
        for step in (1, 2):
            holding.append(Fetching(trainer, trainer.push(step)))
        for step in range(3, 9):  # one that must not be skipped waits for the I/O thread to make room
            slot = trainer.publisher.push(step, wait_s=WITHIN_S)
            assert slot is not None
            trainer.call(lambda slot=slot: trainer.service.announce(slot))
            holding.append(Fetching(trainer, Version(GENERATION, step)))
            for one in holding:
                one.scorer.say(Heartbeat(0, None, (), 0))
        assert trainer.publisher.skipped == 0
        holding[0].ask(1)
        assert receive(holding[0].scorer.weights, Weights)[1].bucket == 1
        holding[3].ask(1)
        assert receive(holding[3].scorer.weights, WeightsGone)[1].newest == Version(GENERATION, 8)


@pytest.mark.usefixtures("_small_buckets")
def test_a_connection_that_has_not_read_what_was_given_up_is_sent_nothing_until_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Trainer() as trainer:
        fetching, is_behind = Fetching(trainer, Version(GENERATION, 0)), [False, True]
        monkeypatch.setattr(trainer.publisher.slots, "is_behind", lambda peer: is_behind.pop())
        fetching.ask(1)
        fetching.ask(2)
        assert receive(fetching.scorer.weights, Weights)[1].bucket == 2


@pytest.mark.usefixtures("_small_buckets")
def test_a_connection_that_is_behind_hears_at_once_that_its_version_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with Trainer() as trainer:
        fetching = Fetching(trainer, Version(GENERATION, 0))
        monkeypatch.setattr(trainer.publisher.slots, "is_behind", lambda peer: True)
        monkeypatch.setattr(trainer.publisher.slots, "holds", lambda version: False)
        monkeypatch.setattr(trainer.publisher.slots, "open", lambda version, session: None)
        fetching.ask(1)
        assert receive(fetching.scorer.weights, WeightsGone)[1].version == Version(GENERATION, 0)
