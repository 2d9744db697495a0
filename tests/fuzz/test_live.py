"""Nonsense over real sockets, against a live trainer and a live scorer, with a correct peer at work beside it."""

import contextlib
import logging
import random
import threading
from collections.abc import Iterator

import pytest
import zmq

from common.config import ScorerOptions
from common.errors import ProtocolError, Rejected
from common.protocol import Candidates, Heartbeat, Lease, Version
from common.security.credentials import Insecure
from scorer.backend import SyntheticBackend
from scorer.link import Link
from scorer.loop import serve
from tests.fuzz.messages import Fuzz
from tests.fuzz.rawpeer import GREETING, RawPeer
from tests.fuzz.wires import resident_bytes
from tests.service.peers import HandMadeScorer, HandMadeTrainer, answer, hello, until
from tests.service.test_service_protocol import GENERATION, V0, Trainer
from trainer.pool import Pool

MIB = 1 << 20
A_PEER = 25  # messages of each peer


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def say_nonsense(endpoint: str, fuzz: Fuzz) -> None:
    """A peer that joins, talks nonsense on both channels and leaves."""
    with HandMadeScorer(endpoint) as scorer:
        scorer.join()
        lease = scorer.hear(Lease)
        for frames in fuzz.messages(A_PEER):
            frames = fuzz.wrong_answer(lease, V0) if fuzz.draw.random() < 0.3 else frames
            own = scorer.weights if fuzz.draw.random() < 0.2 else scorer.control
            own.send_multipart(frames or [b""], zmq.NOBLOCK)


@contextlib.contextmanager
def taking(pool: Pool) -> Iterator[None]:
    """Whatever is scored is taken at once, as training does: chunks that nobody takes leave no room for leases."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            seen = pool.changes
            if not pool.take(0):
                pool.wait(0.1, seen)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        pool.wake()
        thread.join(10.0)


def trouble_trainer(num: int, seed: int) -> int:
    """Bytes by which the process grew in the second half, while a correct scorer had all its answers accepted."""
    fuzz = Fuzz(seed)
    with Trainer() as trainer, taking(trainer.pool):
        honest = trainer.scorer()
        session = honest.join().session
        own, before = trainer.call(lambda: trainer.service.sessions.by_id(session)), 0
        for index in range(num // A_PEER):
            if index == num // A_PEER // 2:
                before = resident_bytes()
            say_nonsense(trainer.endpoint, fuzz)
            honest.say(Heartbeat(index, V0, (), 0))
            lease = honest.hear(Lease)
            assert trainer.pool.lease(session, lease.lease) is not None
            honest.say(answer(lease, V0))
            until(lambda lease=lease: trainer.pool.lease(session, lease.lease) is None, "its answer to be read")
            assert own.progress == index + 1, "its answer was refused: the heartbeat told one less"
        assert trainer.io.alive
        assert trainer.events["messages that broke"] == 0
        assert trainer.call(lambda: trainer.service.sessions.by_id(session)) is own
        return resident_bytes() - before


def trouble_scorer(num: int, seed: int) -> int:
    """Bytes by which the process grew in the second half; each scorer served an honest trainer first."""
    fuzz, before = Fuzz(seed), 0
    for index in range(num // A_PEER):
        if index == num // A_PEER // 2:
            before = resident_bytes()
        with HandMadeTrainer() as trainer:
            _trouble_one(trainer, fuzz)
    return resident_bytes() - before


def _trouble_one(trainer: HandMadeTrainer, fuzz: Fuzz) -> None:
    backend, endings = SyntheticBackend(ScorerOptions(connect=trainer.endpoint, backend="synthetic")), []
    link = Link(trainer.endpoint, hello(), connect_s=5.0, check_manifest=backend.check_manifest, security=Insecure())

    def run() -> None:
        try:
            with link:
                serve(link, backend)
        except Exception as error:
            endings.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    version = Version(GENERATION, 0)
    trainer.welcome(version=version)
    trainer.serve_whole(version)
    trainer.say(Lease(1, GENERATION, 0, 4, b"", 0, 1.0))
    assert trainer.hear(Candidates).lease == 1
    for frames in fuzz.messages(A_PEER):
        if fuzz.draw.random() < 0.3:
            frames = fuzz.wrong_lease(GENERATION)
        trainer.control.send_multipart([trainer.peer, *(frames or [b""])])
    link.stop("the test is over")
    thread.join(10.0)
    assert not thread.is_alive()
    assert all(isinstance(error, ProtocolError | Rejected) for error in endings), endings


def test_a_live_trainer_and_its_correct_scorer_go_on_beside_nonsense() -> None:
    trouble_trainer(200, seed=2)


def test_a_live_scorer_ends_with_words_or_goes_on() -> None:
    trouble_scorer(200, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_live_trainer_stays_as_large_as_it_is_through_many_messages() -> None:
    assert trouble_trainer(20_000, seed=21) < 16 * MIB


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_live_scorers_leave_nothing_behind() -> None:
    assert trouble_scorer(5_000, seed=22) < 16 * MIB


def test_bytes_that_are_no_handshake_do_no_harm() -> None:
    draw = random.Random(5)
    with Trainer() as trainer:
        for start in (b"", GREETING[:10], GREETING, GREETING + b"\x04\x05READY", b"GET / HTTP/1.1\r\n\r\n"):
            for _ in range(5):
                with RawPeer(trainer.endpoint) as peer:
                    peer.socket.sendall(start + draw.randbytes(draw.choice((0, 1, 64, 4000))))
        scorer = trainer.scorer()
        scorer.join()
        scorer.say(answer(scorer.hear(Lease), V0))
        until(lambda: trainer.pool.num_arrived == 1)
