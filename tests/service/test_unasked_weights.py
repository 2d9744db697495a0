"""A scorer that computes with all that it was sent gets the next version unasked; every other one a hint."""

from collections.abc import Iterator

import pytest

from common import buckets
from common.protocol import Heartbeat, Version, VersionHint, Weights, WeightsGone, Welcome
from tests.service.peers import HandMadeScorer, receive, until
from tests.service.test_service_protocol import GENERATION, V0, Trainer
from trainer.weights_desk import LEAST_PORTION, MOST_PORTIONS

BUCKET, NUM_BUCKETS = 2000, 7  # bytes, fewer than a window


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", BUCKET)


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    with Trainer() as opened:
        yield opened


class Scorer:
    """Fetches and loads when it is told to."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.raw: HandMadeScorer = trainer.scorer()
        self.welcome: Welcome = self.raw.join()

    @property
    def session(self) -> object:
        found = self._trainer.service.sessions.by_id(self.welcome.session)
        assert found is not None
        return found

    def fetch(self, version: Version) -> None:
        self.raw.fetch(self.welcome, version, 0, buckets.WINDOW)
        self.take(version)

    def take(self, version: Version) -> None:
        """All buckets of a version, and nothing else before them."""
        for bucket in range(NUM_BUCKETS):
            got = receive(self.raw.weights, Weights)[1]
            assert (got.version, got.bucket) == (version, bucket)

    def load(self, version: Version) -> None:
        """Show that it computes with a version."""
        self.raw.say(Heartbeat(0, version, (), 0))
        until(lambda: self.session.resident == version)  # type: ignore[attr-defined]

    def hints(self) -> list[Version]:
        """Of which versions there were hints until now."""
        self._trainer.tick(2.0)  # a heartbeat, behind everything else that was said
        found = []
        while not isinstance(message := self.raw.hear(object), Heartbeat):
            if isinstance(message, VersionHint):
                found.append(message.version)
        return found


@pytest.fixture
def scorer(trainer: Trainer) -> Scorer:
    """One that has fetched and loaded the first version."""
    made = Scorer(trainer)
    made.fetch(V0)
    made.load(V0)
    return made


def test_who_has_loaded_what_he_was_sent_gets_the_next_version_without_a_hint(trainer: Trainer, scorer: Scorer) -> None:
    for step in (1, 2, 3):
        version = trainer.push(step)
        scorer.take(version)
        scorer.load(version)
    assert scorer.hints() == []
    assert trainer.publisher.pushed == 4, "and no buffer is held for it"


def test_who_has_not_loaded_it_yet_gets_a_hint(trainer: Trainer, scorer: Scorer) -> None:
    first = trainer.push(1)
    scorer.take(first)
    second = trainer.push(2)
    assert scorer.hints() == [second]
    assert not scorer.raw.weights.poll(0)
    scorer.load(first)
    third = trainer.push(3)
    assert scorer.hints() == [third], "the hint before was not answered: a FETCH may be on its way"
    scorer.fetch(third)
    scorer.load(third)
    scorer.take(trainer.push(4))
    assert scorer.hints() == []


def test_who_has_fetched_nothing_gets_a_hint(trainer: Trainer) -> None:
    scorer = Scorer(trainer)
    scorer.load(V0)
    version = trainer.push(1)
    assert scorer.hints() == [version]
    assert not scorer.raw.weights.poll(0)


def test_a_scorer_that_was_set_aside_gets_a_hint(trainer: Trainer, scorer: Scorer) -> None:
    scorer.session.stuck = True  # type: ignore[attr-defined]
    version = trainer.push(1)
    assert scorer.hints() == [version]
    assert not scorer.raw.weights.poll(0)


def test_a_request_that_crosses_what_is_handed_over_is_not_answered_again_and_the_next_one_is(
    trainer: Trainer, scorer: Scorer
) -> None:
    version = trainer.push(1)
    scorer.raw.fetch(scorer.welcome, version, 0, buckets.WINDOW)
    scorer.take(version)
    assert not scorer.raw.weights.poll(100), "it came twice"
    scorer.fetch(version)  # what came was torn: it asks once more


def test_who_hears_that_a_version_is_gone_gets_a_hint_next(trainer: Trainer, scorer: Scorer) -> None:
    scorer.raw.fetch(scorer.welcome, Version(GENERATION, 99), 0, buckets.WINDOW)
    assert receive(scorer.raw.weights, WeightsGone)[1].newest == V0
    version = trainer.push(1)
    assert scorer.hints() == [version], "a FETCH is on its way"


def test_nobody_hears_from_a_heartbeat_of_what_is_about_to_be_sent_to_him(
    trainer: Trainer, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.service._io, "spread", lambda portion: None)  # its turn has not come
    version = trainer.push(1)
    assert scorer.hints() == []
    scorer.take(version)


def test_who_was_faster_than_his_turn_is_told_nothing(
    trainer: Trainer, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.service._io, "spread", lambda portion: None)
    version = trainer.push(1)
    scorer.fetch(version)
    scorer.load(version)
    assert scorer.hints() == []
    assert not scorer.raw.weights.poll(50)


def test_a_request_over_another_connection_is_answered(trainer: Trainer, scorer: Scorer) -> None:
    version = trainer.push(1)
    other = trainer.scorer()
    other.fetch(scorer.welcome, version, 0, buckets.WINDOW)
    assert receive(other.weights, Weights)[1].bucket == 0


def test_a_beat_that_tells_of_weights_which_were_sent_was_asked_for_and_counts_against_nobody(
    trainer: Trainer, scorer: Scorer
) -> None:
    version = trainer.push(1)
    scorer.take(version)
    peer = scorer.session.peer  # type: ignore[attr-defined]
    told = [Heartbeat(0, of, (), 0) for of in (V0, version, version, None)]
    counts = [trainer.call(lambda beat=beat: trainer.service._on_heartbeat(peer, beat)) for beat in told]
    assert counts == [False, True, False, False], "what was not sent last, the news, what is known, nothing"


def test_only_a_window_comes_unasked(trainer: Trainer, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.weights_desk.WINDOW", 4)
    version = trainer.push(1)
    got = [receive(scorer.raw.weights, Weights)[1].bucket for _ in range(4)]
    assert got == [0, 1, 2, 3]
    assert not scorer.raw.weights.poll(100)
    scorer.raw.fetch(scorer.welcome, version, 4, 4)
    assert receive(scorer.raw.weights, Weights)[1].bucket == 4


def test_a_connection_that_is_gone_leads_to_a_hint(trainer: Trainer, scorer: Scorer) -> None:
    scorer.raw.weights.close(0)
    found = []
    for step in range(1, 100):  # ZeroMQ learns of it within milliseconds
        version = trainer.push(step)
        scorer.session.transfer.version = scorer.session.resident = version  # type: ignore[attr-defined]
        scorer.session.transfer.is_hinted = False  # type: ignore[attr-defined]
        if found := scorer.hints():
            break
    assert found == [version]


def test_many_scorers_hear_of_a_version_in_portions_and_those_who_are_left_of_the_newest(trainer: Trainer) -> None:
    num = 2 * LEAST_PORTION + 3
    scorers = [trainer.scorer() for _ in range(num)]
    for one in scorers:
        one.join()
    portions: list[int] = []

    def announced(step: int) -> None:
        slot = trainer.publisher.push(step)
        assert slot is not None
        trainer.service.weights.announce(slot)

    def told() -> bool:
        before = len(trainer.service.weights._due)
        goes_on = trainer.service.weights.tell()
        portions.append(before - len(trainer.service.weights._due))
        return goes_on

    trainer.call(lambda: (announced(1), told()))
    trainer.call(lambda: (announced(2), told(), told(), told()))
    assert portions[0] == LEAST_PORTION < num
    assert sum(portions) == LEAST_PORTION + num
    assert max(portions) <= LEAST_PORTION
    heard: dict[int, int] = {1: 0, 2: 0}
    for one in scorers:
        while (step := one.hear(VersionHint).version.step) != 2:
            heard[step] += 1
        heard[2] += 1
    assert heard == {1: LEAST_PORTION, 2: num}


def test_a_thousand_scorers_are_told_in_few_portions(trainer: Trainer) -> None:
    desk = trainer.service.weights
    many = [object()] * (100 * MOST_PORTIONS)
    desk._sessions = many  # type: ignore[assignment]
    slot = trainer.publisher.push(1)
    trainer.call(lambda: desk.announce(slot))
    assert desk._portion == 100
