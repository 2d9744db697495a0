"""What a scorer makes of a trainer that is broken or hostile, over real sockets."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import Error, Goodbye, Heartbeat, Lease, Version, VersionHint, WeightsGone
from common.protocol.limits import MAX_LEASES
from scorer import inbox
from scorer.dialogue import STRIKES_AT_ONCE
from scorer.link import Link
from tests.service.peers import HandMadeTrainer, weights_of
from tests.service.test_link_protocol import GENERATION, lease, load, make_link, resident, version

pytestmark = pytest.mark.usefixtures("small_buckets")


@pytest.fixture
def link(trainer: HandMadeTrainer) -> Iterator[Link]:
    with make_link(trainer) as opened:
        yield opened


def refused(trainer: HandMadeTrainer) -> str:
    error = trainer.hear(Error)
    assert error.code == "malformed"
    return error.text


def test_a_trainer_that_keeps_talking_nonsense_ends_the_scorer_with_words(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    for _ in range(int(STRIKES_AT_ONCE)):
        trainer.control.send_multipart([trainer.peer, b"noise"])
    assert "makes no sense" in trainer.hear(Goodbye).reason
    with pytest.raises(ProtocolError, match="keeps sending what makes no sense; the last: the first frame is no"):
        link.next_work()


def test_a_welcome_that_nobody_asked_for_is_refused(trainer: HandMadeTrainer, link: Link) -> None:
    welcome = resident(trainer, link)
    for session in range(10, 13):
        trainer.say(replace(welcome, session=session))
    texts = [refused(trainer)]
    assert "answers no HELLO" in texts[0]


WRONG_WELCOMES: dict[str, tuple[dict[str, Any], str]] = {
    "of other data": ({"num_samples": 99}, "99 samples; this scorer has 100"),
    "for scores of another backend": ({"scores": ("predicted-loss",)}, "--backend torch does not compute"),
}


@pytest.mark.parametrize(("changes", "says"), WRONG_WELCOMES.values(), ids=WRONG_WELCOMES)
def test_a_welcome_that_does_not_fit_is_refused(
    changes: dict[str, Any], says: str, trainer: HandMadeTrainer, link: Link
) -> None:
    trainer.welcome(**changes)
    assert says in refused(trainer)


def test_a_welcome_over_tcp_names_a_port_for_weights() -> None:
    with HandMadeTrainer("tcp") as trainer, make_link(trainer):
        trainer.welcome(weights_port=0)
        assert "no port for weights" in refused(trainer)


def test_versions_of_another_generation_are_refused(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    for message in (
        VersionHint(Version(GENERATION + 1, 9), 1000),
        Heartbeat(0, Version(GENERATION + 1, 9), (), 9),
        WeightsGone(version(0), Version(GENERATION + 1, 9)),
    ):
        trainer.say(message)
        assert f"in a session of generation {GENERATION}" in refused(trainer)


def test_weights_of_another_generation_are_refused_though_nobody_asked_for_them(
    trainer: HandMadeTrainer, link: Link
) -> None:
    resident(trainer, link)
    trainer.reply(weights_of(Version(GENERATION + 1, 9))[0])
    assert f"in a session of generation {GENERATION}" in refused(trainer)


def test_a_newer_version_is_taken_unasked(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    for message in weights_of(version(3)):
        trainer.reply(message)
    assert load(link) == version(3)


def test_a_lease_of_more_than_a_chunk_is_refused(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    trainer.say(Lease(1, GENERATION, 0, 5, b"", 0, 60.0))
    assert "5 positions, a chunk has 4" in refused(trainer)


def test_a_scorer_takes_so_many_leases_and_goes_on_to_beat(
    trainer: HandMadeTrainer, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inbox.MAX_LEASES == MAX_LEASES, "as many as a heartbeat may list"
    monkeypatch.setattr(inbox, "MAX_LEASES", 20)
    resident(trainer, link)
    for number in range(22):
        trainer.say(lease(number))
    assert "at most 20" in refused(trainer)
    while len(trainer.hear(Heartbeat).leases) != 20:
        pass


def test_what_is_gone_is_not_asked_for_again(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(version=version(5))
    trainer.fetched()
    trainer.reply(WeightsGone(version(5), version(3)))
    assert trainer.fetched().version == version(3)
    trainer.reply(WeightsGone(version(3), None))
    trainer.say(lease(1))
    while trainer.hear(Heartbeat).leases != (1,):
        pass
    assert not trainer.weights.poll(0)


def test_late_buckets_of_a_transfer_that_was_given_up_do_no_harm(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(version=version(0))
    first = trainer.fetched()
    for message in weights_of(first.version)[3:]:
        trainer.reply(message)
    trainer.serve(first)
    trainer.serve_whole(version(0))
    assert load(link) == version(0)
