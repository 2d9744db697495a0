"""A scorer that may open no socket for a while: it goes on with what it has, and tries again until there is one."""

import pytest

import scorer.dialogue
from common.protocol import Hello
from scorer.link import Link
from tests.common.shortage import no_descriptor_left
from tests.service.peers import HandMadeTrainer, until
from tests.service.several_ranks import SeveralRanks, W, num_in_session
from tests.service.test_link_protocol import load, make_link, version

pytestmark = pytest.mark.usefixtures("quick_ranks")


def test_weights_are_fetched_once_there_is_a_socket_for_them(caplog: pytest.LogCaptureFixture) -> None:
    with HandMadeTrainer() as trainer, make_link(trainer) as link:
        trainer.hear(Hello)
        with no_descriptor_left():
            trainer.welcome(version=version(0))
            until(lambda: "no new connection for weights" in caplog.text)
        assert "Too many open files; see ulimit -n; this is tried again" in caplog.text
        trainer.serve_whole(version(0))
        assert load(link) == version(0)


def test_weights_that_stopped_arriving_are_asked_for_over_a_connection_once_there_is_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with HandMadeTrainer() as trainer, make_link(trainer) as link:
        monkeypatch.setattr(link._ranks.versions.fetcher, "_patience_s", 0.0)
        with monkeypatch.context() as impatient:
            impatient.setattr("scorer.fetcher.TRANSFER_S", 0.1)
            trainer.welcome(version=version(0))
            trainer.fetched()
            with no_descriptor_left():
                until(lambda: "no new connection for weights" in caplog.text)
        trainer.serve_whole(version(0))
        assert load(link) == version(0)


def test_a_trainer_that_went_away_is_found_again_after_the_shortage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scorer.dialogue, "FRESH_AFTER_S", 0.1)
    with HandMadeTrainer("tcp") as trainer, make_link(trainer) as link:
        trainer.welcome(silence_s=0.05)
        lost = trainer.peer
        with no_descriptor_left():
            until(lambda: "no new connection to the trainer" in caplog.text)
        until(lambda: trainer.hear(Hello) and trainer.peer != lost, "a HELLO over another connection")
        assert link.watched.io.alive


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_ranks_are_greeted_once_there_are_sockets_for_them(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    with SeveralRanks(scheme) as ranks, make_link(ranks[0]) as link:
        ranks[0].hear(Hello)
        with no_descriptor_left():
            ranks.welcome(0, version=version(0))
            until(lambda: f"no new connection to rank {W - 1} of the trainer" in caplog.text)
        served(ranks, link)


def served(ranks: SeveralRanks, link: Link) -> None:
    ranks[0].serve_whole(version(0))
    assert load(link) == version(0)
    for rank in range(1, W):
        ranks.welcome(rank)
    until(lambda: num_in_session(link) == W, "all sessions")
