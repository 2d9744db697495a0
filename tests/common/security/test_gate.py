"""Who enters over tcp, and that nobody else gets or says anything, on either channel. Real sockets throughout."""

import contextlib
from pathlib import Path

import pytest
import zmq

from common.errors import EndpointError
from common.security.credentials import Credentials, Insecure
from common.security.gate import Gate
from common.security.keys import KeyPair
from common.transport import CONTROL, WEIGHTS, Channel, IOThread
from tests.common.security.guarded import Trainer, knows, scorer
from tests.common.transport.sides import MIB, TCP, WITHIN_S, Recorder, Side, call, raw_dealer, until


@pytest.mark.parametrize("channel", [CONTROL, WEIGHTS])
def test_a_listed_key_is_heard_and_answered(
    channel: Channel, opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    own = scorer(opened, trainer, Credentials(keys), channel)
    peer = trainer.hears(own, channel, b"hello")
    trainer.side.send(channel, [b"back", bytes(1 << 20)], peer)
    assert own.recorder.next()[2] == [b"back", bytes(1 << 20)]


@pytest.mark.parametrize("channel", [CONTROL, WEIGHTS])
@pytest.mark.parametrize("kind", ["unlisted key", "plaintext", "wrong server key"])
def test_nobody_else_says_or_gets_anything_and_the_listed_are_served(
    kind: str, channel: Channel, opened: contextlib.ExitStack, trainer: Trainer, keys: Path, stranger: Path
) -> None:
    if kind == "unlisted key":
        knows(stranger, keys)
    security = Insecure() if kind == "plaintext" else Credentials(stranger)
    intruder = scorer(opened, trainer, security, channel)
    intruder.recorder.tick = lambda: intruder.io.send(channel, [b"let me in"])
    until(lambda: security.trouble)
    expected = {"unlisted key": "refused the key", "plaintext": "wants keys", "wrong server key": "its key is not the"}
    assert expected[kind] in str(security.trouble)
    peer = trainer.hears(scorer(opened, trainer, Credentials(keys), channel), channel, b"listed")
    assert trainer.side.send(channel, [b"back"], peer) is None
    assert trainer.side.recorder.messages.empty()
    assert intruder.recorder.messages.empty()
    assert call(intruder.io, lambda: intruder.io.send(channel, [b"let me in"])) is False
    assert (trainer.gate.events["peers kept out"] > 0) == (kind == "unlisted key")


def test_what_a_plaintext_peer_has_queued_never_arrives(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    dealer = raw_dealer(opened, None)
    told = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    opened.callback(told.close, 0)
    dealer.connect(trainer.endpoints[CONTROL])
    with contextlib.suppress(zmq.Again):  # once it was turned away, nothing more can be queued
        for _ in range(100):
            dealer.send(b"let me in", zmq.NOBLOCK)
    assert told.poll(10_000), "it was not turned away"
    trainer.hears(scorer(opened, trainer, Credentials(keys), CONTROL), CONTROL, b"listed")
    assert trainer.side.recorder.messages.empty()


def test_a_closed_authenticator_closes_the_door_and_leaves_those_inside_alone(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    inside = scorer(opened, trainer, Credentials(keys), CONTROL)
    trainer.hears(inside, CONTROL, b"before")

    def close() -> None:
        asked = trainer.gate.asked
        assert asked is not None
        trainer.side.io._polled[:] = [entry for entry in trainer.side.io._polled if entry[0] is not asked]
        asked.close(0)

    call(trainer.side.io, close)
    late = Credentials(keys)
    outside = scorer(opened, trainer, late, CONTROL)
    outside.recorder.tick = lambda: outside.io.send(CONTROL, [b"let me in"])
    until(lambda: late.trouble)
    trainer.hears(inside, CONTROL, b"after")
    assert trainer.side.recorder.messages.empty()


def test_an_authenticator_that_does_not_answer_keeps_the_door_closed(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    inside = scorer(opened, trainer, Credentials(keys), CONTROL)
    trainer.hears(inside, CONTROL, b"before")
    asked = trainer.gate.asked
    assert asked is not None

    def stop() -> None:
        trainer.side.io._polled[:] = [entry for entry in trainer.side.io._polled if entry[0] is not asked]

    call(trainer.side.io, stop)
    outside = scorer(opened, trainer, Credentials(keys), CONTROL)
    until(lambda: call(trainer.side.io, lambda: asked.poll(0)))
    assert outside.send(CONTROL, [b"let me in"]) is False, "it waits for an answer"
    trainer.hears(inside, CONTROL, b"after")
    assert trainer.side.recorder.messages.empty()


@pytest.mark.usefixtures("_looks_often")
def test_an_authenticator_that_raises_lets_nobody_in_until_it_works_again(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(version: bytes, question: list[bytes]) -> str | None:
        raise RuntimeError("bug")

    with monkeypatch.context() as broken:
        broken.setattr(trainer.gate, "_judge", fail)
        credentials = Credentials(keys)
        own = scorer(opened, trainer, credentials, CONTROL)
        own.recorder.tick = lambda: own.io.send(CONTROL, [b"let me in"])
        until(lambda: trainer.gate.events["keys that could not be checked"] >= 3)
        until(lambda: credentials.trouble)
        assert "could not check the key" in str(credentials.trouble)
        assert trainer.side.recorder.messages.empty()
        assert trainer.side.io.alive
    assert trainer.side.recorder.next()[2] == [b"let me in"]


@pytest.mark.parametrize(
    "question",
    [
        [],
        [b"1.0"],
        [b"1.0", b"1", b"marginstream", b"::1", b"", b"NULL"],
        [b"1.0", b"1", b"marginstream", b"::1", b"", b"CURVE"],
        [b"1.0", b"1", b"marginstream", b"::1", b"", b"CURVE", b"short"],
        [b"1.0", b"1", b"elsewhere", b"::1", b"", b"CURVE", bytes(32)],
        [b"2.0", b"1", b"marginstream", b"::1", b"", b"CURVE", bytes(32)],
        [b"1.0", b"1", b"marginstream", b"::1", b"", b"CURVE", bytes(32), bytes(32)],
    ],
)
def test_a_strange_question_is_not_answered_with_yes(
    question: list[bytes], opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    trainer.gate._allowed["0" * 40] = "the key of zeros"

    def ask() -> "zmq.Socket[bytes]":
        own: zmq.Socket[bytes] = trainer.side.io._own._context.socket(zmq.DEALER)
        own.setsockopt(zmq.LINGER, 0)
        own.connect("inproc://zeromq.zap.01")
        own.send_multipart([b"", *question])
        return own

    own = call(trainer.side.io, ask)
    trainer.hears(scorer(opened, trainer, Credentials(keys), CONTROL), CONTROL, b"hello")  # it was served before this
    answer = call(trainer.side.io, lambda: own.recv_multipart() if own.poll(0) else [])
    call(trainer.side.io, lambda: own.close(0))
    assert b"200" not in answer


def test_who_knocks_while_the_trainer_says_goodbye_is_answered(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, stranger: Path
) -> None:
    knows(stranger, keys)

    def farewell() -> None:
        scorer(opened, trainer, Credentials(stranger), CONTROL)
        trainer.side.io.receive_until(lambda: trainer.gate.events["peers kept out"] > 0, WITHIN_S)

    trainer.side.recorder.farewell = farewell
    trainer.side.io.stop()
    assert trainer.gate.events["peers kept out"] > 0


@pytest.mark.parametrize("endpoint", [TCP, "tcp://0.0.0.0:0"])
def test_no_tcp_is_opened_that_nothing_guards(endpoint: str) -> None:
    bare = IOThread("test-io", Recorder(), max_frame_bytes=1 << 20)
    with pytest.raises(EndpointError, match=r"needs keys.*marginstream keygen DIR"):
        bare.bind(CONTROL, endpoint)
    with pytest.raises(EndpointError, match=r"needs keys.*--insecure"):
        bare.connect(CONTROL, endpoint)
    bare.stop()


def test_insecure_stops_at_loopback() -> None:
    side = Side(security=Insecure())
    with pytest.raises(EndpointError, match="--insecure is for loopback only"):
        side.io.bind(CONTROL, "tcp://0.0.0.0:0")
    with pytest.raises(EndpointError, match="--insecure is for loopback only"):
        side.io.connect(CONTROL, "tcp://192.0.2.1:5555")
    side.io.stop()


def test_the_log_names_no_key_and_is_not_filled_by_those_who_knock(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, stranger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    knows(stranger, keys)
    for _ in range(5):
        before = trainer.gate.events["peers kept out"]
        scorer(opened, trainer, Credentials(stranger), CONTROL)
        until(lambda before=before: trainer.gate.events["peers kept out"] > before)
    refusals = [record.getMessage() for record in caplog.records if "kept out" in record.getMessage()]
    assert len(refusals) == 1
    assert "127.0.0.1" in refusals[0]
    assert isinstance(trainer.gate._pair, KeyPair)
    for path in (*keys.rglob("*.*"), *stranger.rglob("*.*")):
        for line in path.read_text().splitlines():
            assert line.partition('"')[2].strip('"') not in caplog.text or '"' not in line


def test_a_frame_of_exactly_the_limit_arrives_in_its_box_and_a_larger_one_does_not(
    opened: contextlib.ExitStack, keys: Path
) -> None:
    side = Side(security=Gate(keys), max_frame_bytes=MIB)
    opened.callback(side.io.stop)
    endpoint = side.io.bind(CONTROL, TCP)
    side.io.start()
    own = Side(security=Credentials(keys))
    opened.callback(own.io.stop)
    own.io.connect(CONTROL, endpoint)
    own.io.start()
    for frame in (bytes(MIB), bytes(MIB - 33), b"small"):
        until(lambda frame=frame: own.send(CONTROL, [frame]) is not False)
        assert side.recorder.next()[2] == [frame]
    own.send(CONTROL, [bytes(MIB + 65)])
    own.recorder.tick = lambda: own.io.send(CONTROL, [b"connected again"])
    while (got := side.recorder.next()[2][0]) != b"connected again":
        assert len(got) <= MIB
