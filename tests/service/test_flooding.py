"""Floods over real sockets: they cost the sender its session, and a correct scorer beside it loses nothing."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import zmq

from common import inflow
from common.protocol import Error, Goodbye, Heartbeat, Lease, Message, Reject, Weights, encode
from common.transport import CONTROL, WEIGHTS
from tests.common.transport import sides
from tests.fuzz.rawpeer import RawPeer
from tests.service.peers import HandMadeScorer, answer, hello, receive, until
from tests.service.test_service_protocol import TERMS, V0, Trainer
from trainer.patience import MESSAGES_AT_ONCE

MIB = 1 << 20
MANY = 3 * int(MESSAGES_AT_ONCE)


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    with Trainer() as opened:
        yield opened


@pytest.fixture
def honest(trainer: Trainer) -> Iterator[HandMadeScorer]:
    """A correct scorer; at the end it is still there, and served."""
    scorer = trainer.scorer()
    session = scorer.join().session
    lease = scorer.hear(Lease)
    yield scorer
    scorer.say(answer(lease, V0))
    until(lambda: trainer.pool.num_arrived == 1, "the correct scorer's chunk")
    assert trainer.call(lambda: trainer.service.sessions.by_id(session)) is not None
    assert trainer.events["messages that broke"] == 0


def flood(socket: "zmq.Socket[bytes]", message: Message, num: int = MANY) -> None:
    frames = encode(message)
    deadline = time.monotonic() + 10.0
    for _ in range(num):
        while time.monotonic() < deadline:
            try:
                socket.send_multipart(frames, zmq.NOBLOCK)
                break
            except zmq.Again:
                time.sleep(0.001)


FLOODS: dict[str, Callable[[HandMadeScorer, Lease], Message]] = {
    "heartbeats": lambda scorer, lease: Heartbeat(1, None, (), 0),
    "answers that nobody waits for": lambda scorer, lease: answer(lease, V0),
    "errors": lambda scorer, lease: Error("malformed", "no"),
}


@pytest.mark.parametrize("kind", FLOODS.values(), ids=FLOODS)
def test_a_flood_costs_its_sender_the_session_and_nobody_else_anything(
    kind: Callable[[HandMadeScorer, Lease], Message], trainer: Trainer, honest: HandMadeScorer
) -> None:
    scorer = trainer.scorer()
    session = scorer.join().session
    flood(scorer.control, kind(scorer, scorer.hear(Lease)))
    until(lambda: trainer.events["peers that flooded"], "the flood to be noticed")
    assert trainer.call(lambda: trainer.service.sessions.by_id(session)) is None
    while (error := scorer.hear(Error)).code != "limit":
        pass
    assert "not heard for 10 s" in error.text


def test_answers_that_were_asked_for_are_no_flood(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    for _ in range(int(MESSAGES_AT_ONCE) + 100):
        scorer.say(answer(scorer.hear(Lease), V0))
        until(lambda: trainer.pool.take(0))
    assert trainer.events["peers that flooded"] == 0


def test_whoever_says_hello_all_the_time_is_soon_not_heard(
    trainer: Trainer, honest: HandMadeScorer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scorer = trainer.scorer()
    flood(scorer.control, hello(), 600)
    until(lambda: trainer.events["peers that flooded"], "the flood to be noticed")
    assert trainer.events["scorers joined"] < 150
    assert len(caplog.messages) < 120


def test_strangers_get_a_bounded_number_of_answers(trainer: Trainer, honest: HandMadeScorer) -> None:
    stranger = trainer.scorer()
    flood(stranger.control, Heartbeat(1, None, (), 0))
    until(lambda: trainer.events["messages not heard"], "the flood to be noticed")
    num = 0
    while stranger.control.poll(50):
        stranger.control.recv_multipart()
        num += 1
    assert num < 2 * MESSAGES_AT_ONCE


def test_refused_scorers_do_not_fill_the_log(trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    scorer = trainer.scorer()
    flood(scorer.control, hello(num_samples=1), 20)
    until(lambda: trainer.events["scorers rejected"] == 20)
    assert len(caplog.messages) <= 2


def test_buckets_that_were_sent_already_are_charged(trainer: Trainer, honest: HandMadeScorer) -> None:
    scorer = trainer.scorer()
    welcome = scorer.join()
    for _ in range(MANY):
        scorer.fetch(welcome, V0)
    until(lambda: trainer.events["peers that flooded"], "the flood to be noticed")
    assert trainer.call(lambda: trainer.service.sessions.by_id(welcome.session)) is None
    num = 0
    while scorer.weights.poll(50):
        assert isinstance(receive(scorer.weights, Weights)[1], Weights)
        num += 1
    assert num < 2 * MESSAGES_AT_ONCE


def test_a_message_of_very_many_frames_is_refused(trainer: Trainer, honest: HandMadeScorer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    scorer.control.send_multipart([b"x"] * 50_000)
    assert "1 to 16 frames, got 17" in until(lambda: scorer.hear(Error)).text


def test_a_frame_larger_than_this_run_needs_ends_the_connection(honest: HandMadeScorer, trainer: Trainer) -> None:
    with RawPeer(trainer.endpoint) as peer:
        peer.join()
        try:
            peer.frame(bytes(9 * MIB))
        except OSError:
            return  # closed while it was being said
        assert peer.is_closed()


def test_frame_limits_follow_what_a_run_ships() -> None:
    assert TERMS.frame_limits == {CONTROL: 8 * MIB, WEIGHTS: 64 << 10}


def test_no_more_scorers_than_a_trainer_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.reception.MAX_SESSIONS", 1)
    with Trainer() as trainer:
        first, second = trainer.scorer(), trainer.scorer()
        first.join()
        second.say(hello())
        assert second.hear(Reject).field == "capacity"
        first.join()  # again: it takes its own place
        first.say(Goodbye("enough"))
        until(lambda: len(trainer.service.sessions) == 0)
        second.join()


def test_a_lease_that_is_never_answered_goes_to_others_although_its_holder_says_that_it_works() -> None:
    with Trainer(replace(TERMS, lease_s=60.0)) as trainer:
        scorer = trainer.scorer()
        scorer.join()
        later = time.monotonic() + 260.0

        def moves() -> None:
            for session in trainer.service.sessions:
                session.progress_at = later

        trainer.call(moves)
        trainer.tick(239.0)
        assert trainer.events["scorers stuck"] == 0
        trainer.tick(241.0)
        assert trainer.events["scorers stuck"] == 1


def test_a_scorer_whose_beats_waited_while_the_trainer_stood_still_is_not_taken_for_silent() -> None:
    with Trainer(replace(TERMS, silence_s=1.0)) as trainer:
        scorers = [trainer.scorer() for _ in range(4)]
        for scorer in scorers:
            scorer.join()
        told = trainer.events["scorers left"]
        trainer.io.post(lambda: time.sleep(1.6))
        for scorer in scorers:
            scorer.say(Heartbeat(1, V0, (), 0))
        trainer.call(lambda: None)
        assert trainer.events["scorers left"] == told


def test_a_message_without_an_end_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflow, "SLACK_BYTES", 4 * MIB)
    monkeypatch.setattr(inflow, "FRAMES", 0)
    with contextlib.ExitStack() as opened:
        side, bound = sides.trainer(opened, sides.TCP, max_frame_bytes=MIB)
        honest, endless = sides.raw_dealer(opened, bound), opened.enter_context(RawPeer(bound))
        endless.join()
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 4000:
                endless.frame(bytes(MIB >> 1), more=True)
                sent += 1
        assert 8 < sent < 4000
        sides.until(lambda: side.io.events["connections closed"] == 1)  # counted once the peer may know
        for _ in range(3):
            honest.send(b"still here")
            assert side.recorder.next()[2] == [b"still here"]


def test_much_that_is_read_is_no_message_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflow, "SLACK_BYTES", 4 * MIB)
    monkeypatch.setattr(inflow, "FRAMES", 0)
    monkeypatch.setattr(inflow, "LOOK_EVERY_S", 0.0)
    with contextlib.ExitStack() as opened:
        side, bound = sides.trainer(opened, sides.TCP, max_frame_bytes=MIB)
        honest = sides.raw_dealer(opened, bound)
        for _ in range(32):
            honest.send(bytes(MIB))
            side.recorder.next()
        assert side.io.events["connections closed"] == 0
