"""A trainer without sockets: the real decoding, handlers and accounts."""

import itertools
import time
from dataclasses import replace

import numpy as np
from torch import nn

from common.protocol import (
    Array,
    Error,
    Fetch,
    Goodbye,
    Heartbeat,
    Lease,
    Message,
    Version,
    Welcome,
    encode,
)
from common.transport import CONTROL, WEIGHTS, Channel
from tests.fuzz.messages import Frames, Fuzz, flat
from tests.fuzz.wires import CHUNK, GENERATION, NUM_A_PEER, Wires
from tests.service.peers import FINGERPRINT, answer, hello
from trainer.leases import LeaseBook, Pace
from trainer.pool import Pool
from trainer.publisher import Publisher
from trainer.service import Service
from trainer.terms import NOT_NEGATIVE, Terms

STEPS = 1 << 40
TERMS = Terms(
    run="mine", generation=GENERATION, seed=3, num_samples=100, num_classes=10, chunk_size=CHUNK, scores=("mms",),
    lowest_is_hard=True, transfer="reference", best_k=None, fingerprint=FINGERPRINT, sample_shape=(2,),
    sample_dtype="float32", target_shape=(), leases_per_scorer=2, silence_s=1e6, lease_s=1e6,
    not_negative=NOT_NEGATIVE,
)  # fmt: skip
SHIPPED = {"inputs": Array.of(np.ones((CHUNK, 2), np.float32)), "targets": Array.of(np.zeros(CHUNK, np.int64))}


class TrainerEnd:
    """A trainer's service, with one honest scorer beside those that the fuzz plays.

    Args:
        transfer: "reference", or "payload", with which samples come that can be trained on.
    """

    def __init__(self, seed: int, transfer: str = "reference") -> None:
        self._shipped = SHIPPED if transfer == "payload" else {}
        self.fuzz = Fuzz(seed)
        pace = Pace(1, max_staleness=64, push_every=1, first_step=0, stop_step=STEPS)
        self.pool = Pool(LeaseBook(CHUNK, pace), min_candidates=CHUNK, chunks_per_step=1, exact=True)
        publisher = Publisher(nn.Linear(10, 3), None, GENERATION)
        self.service = Service(replace(TERMS, transfer=transfer), self.pool, publisher)
        self.wires = Wires()
        self.service.on_start(self.wires)  # type: ignore[arg-type]
        slot = publisher.push(0)
        self.service.announce(slot)
        self.num_steps = self._num_rounds = 0
        self._version = Version(GENERATION, 0)
        self._peers = itertools.count(1)
        self._honest = self._peer()
        self.say(self._honest, hello())
        self._session = next(iter(self.service.sessions)).id

    def _peer(self) -> bytes:
        peer = b"\0" + next(self._peers).to_bytes(4, "big")
        self.wires.heard = {getattr(self, "_honest", peer), peer}
        return peer

    def say(self, peer: bytes, message: Message | Frames, channel: Channel = CONTROL) -> None:
        frames = message if isinstance(message, list) else encode(message)
        self.service.on_message(channel, peer, [memoryview(frame) for frame in frames])

    def run(self, num: int) -> None:
        """Say `num` messages that make no sense; the honest scorer goes on meanwhile."""
        told = 0
        while told < num:
            peer = self._peer()
            self.say(peer, hello(backend=self.fuzz.draw.choice(("torch", "predictor", "synthetic"))))
            mine = [message for _, message in self.wires.take(peer)]
            leases = [message for message in mine if isinstance(message, Lease)]
            session = next((message.session for message in mine if isinstance(message, Welcome)), 0)
            asked = [flat(Fetch(session, self._version, 0, 16))]
            for frames in self.fuzz.messages(NUM_A_PEER, asked):
                if leases and self.fuzz.draw.random() < 0.4:
                    frames = self.fuzz.wrong_answer(leases[0], self._version)
                self.say(peer, frames, WEIGHTS if self.fuzz.draw.random() < 0.2 else CONTROL)
                leases += [message for _, message in self.wires.take(peer) if isinstance(message, Lease)]
                del leases[:-4]
                told += 1
            self.say(peer, Goodbye("enough"))
            self._go_on()

    def _go_on(self) -> None:
        """One beat, and answers to all leases of the honest scorer; then as many steps of the trainer as it can."""
        self._num_rounds += 1
        if self._num_rounds % 100 == 0:
            self.say(self._honest, Heartbeat(self.num_steps, self._version, (), 0))
        self.service.on_tick(time.monotonic())
        for _, message in self.wires.take(self._honest):
            assert not isinstance(message, Error), message.text
            if isinstance(message, Lease):
                self.say(self._honest, answer(message, self._version, **self._shipped))
        while chunks := self.pool.take(0):
            (chunk,) = chunks
            scores = chunk.scores["mms"]
            assert chunk.stop - chunk.start == len(scores) == CHUNK
            assert bool((scores[scores.isfinite()] >= 0).all())
            assert not scores.isinf().any()
            if chunk.payload is not None:
                assert bool(chunk.payload.inputs[scores.isfinite()].isfinite().all())
                assert 0 <= int(chunk.payload.targets.min()) <= int(chunk.payload.targets.max()) < TERMS.num_classes
            self.num_steps += 1

    def check(self) -> None:
        """Nothing broke, the honest scorer is still there, and the account balances."""
        events, account = self.service.traffic.events, self.pool.account()
        assert events["messages that broke"] == 0
        assert self.service.sessions.by_id(self._session) is not None, "the honest scorer lost its session"
        ends = ("consumed", "expired", "dropped", "skipped", "outstanding")
        assert account["leased"] == sum(account[name] for name in ends)
        assert account["consumed"] == self.num_steps
