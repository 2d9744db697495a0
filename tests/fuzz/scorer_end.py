"""A scorer without sockets: the real decoding, handlers and weights."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from common.buckets import bucket_checksum
from common.errors import ProtocolError, Rejected
from common.protocol import (
    Candidates,
    Fetch,
    Hello,
    Lease,
    Message,
    TensorSpec,
    Version,
    VersionHint,
    Weights,
    Welcome,
    encode,
)
from common.protocol.limits import MAX_LEASES
from common.sockets import control_of
from common.transport import CONTROL, WEIGHTS, Channel
from scorer.link import Link
from scorer.replica import Replica
from scorer.staging import StagedWeights
from tests.fuzz.messages import Frames, Fuzz, flat
from tests.fuzz.wires import CHUNK, GENERATION, NUM_A_PEER, Wires
from tests.service.peers import answer, hello


class Idle(Exception):
    """There is nothing to do."""


class NeverWaits(threading.Condition):
    def wait(self, timeout: float | None = None) -> bool:
        raise Idle


class ScorerEnd:
    """A scorer's link with a real replica, and a trainer that is honest now and then."""

    def __init__(self, seed: int) -> None:
        self.fuzz = Fuzz(seed)
        self.model = nn.Linear(10, 3)
        self.replica = Replica(self.model, self.model, torch.device("cpu"), "float32")
        self._sessions = itertools.count(1)
        self.num_ended = self.num_scored = self.num_loaded = 0

    def run(self, num: int) -> None:
        """Hear `num` messages that make no sense, in one session after the other."""
        told = 0
        while told < num:
            for _ in self._session():
                told += 1

    def check(self) -> None:
        """Weights were loaded, chunks scored, and what made no sense ended sessions."""
        assert min(self.num_loaded, self.num_scored, self.num_ended) > 0

    def _session(self) -> Iterator[None]:
        wires = Wires()
        with patch("scorer.link.IOThread", lambda *args, **options: wires):
            link = Link("ipc:///nowhere", hello(), connect_s=1e9, check_manifest=self.replica.check_manifest)
        link.changed = NeverWaits()

        def say(message: Message | Frames, channel: Channel = CONTROL) -> None:
            frames = message if isinstance(message, list) else encode(message)
            link.on_message(channel, b"", [memoryview(frame) for frame in frames])

        link.on_tick(time.monotonic())
        assert isinstance(wires.take()[0][1], Hello)
        version, session, num_ranks = Version(GENERATION, 0), next(self._sessions), self.fuzz.draw.choice((1, 3))
        channels = [control_of(rank) for rank in range(num_ranks)]
        say(self._welcome(session, version, 0, num_ranks))
        self._serve(say, wires, version)
        self._work(link)
        link.on_tick(time.monotonic())
        for rank, channel in enumerate(channels[1:], start=1):
            say(self._welcome(session, None, rank, num_ranks), channel)
        assert link._ranks.num_in_session == num_ranks
        say(Lease(1, GENERATION, 0, CHUNK, b"", 0, 1.0))
        assert self._work(link) == 1, "an honest trainer is served"
        fits = [flat(VersionHint(Version(GENERATION, 1), 100)), flat(self._welcome(session + 1, version))]
        for frames in self.fuzz.messages(NUM_A_PEER, fits):
            asked = [message for _, message in wires.take() if isinstance(message, Fetch)]
            if asked and self.fuzz.draw.random() < 0.7:
                frames = self.fuzz.wrong_bucket(asked[-1])
            elif self.fuzz.draw.random() < 0.2:
                frames = self.fuzz.wrong_lease(GENERATION)
            say(frames, WEIGHTS if self.fuzz.draw.random() < 0.3 else self.fuzz.draw.choice(channels))
            yield
            link.on_tick(time.monotonic())
            if not self._goes_on(link):
                return

    def _goes_on(self, link: Link) -> bool:
        """Do what there is to do; False once this scorer has ended, with words."""
        try:
            self._work(link)
        except (ProtocolError, Rejected):  # with words: all of this project's errors have some
            self.num_ended += 1
            return False
        assert all(len(dialogue.inbox.leases) <= MAX_LEASES for dialogue in link._ranks)
        return link._ranks.state.ended is None

    def _work(self, link: Link) -> int:
        """As the scorer's loop, as far as there is anything to do. Returns how many chunks were scored."""
        num = 0
        with contextlib.suppress(Idle):
            while (work := link.next_work()) is not None:
                if isinstance(work, StagedWeights):
                    self.replica.load(work)
                    link.loaded(work)
                    self.num_loaded += 1
                    continue
                num += 1
                assert isinstance(work.order, Lease)
                link.answer(work.order, self._answer(work.order, work.version))
        self.num_scored += num
        return num

    def _answer(self, lease: Lease, version: Version | None) -> Candidates:
        assert version is not None
        assert 0 < lease.num <= CHUNK
        scored = self.replica.score(torch.ones(lease.num, 10), torch.zeros(lease.num, dtype=torch.int64), ("mms",))
        return answer(lease, version, torch.nan_to_num(scored.scores["mms"]).tolist())

    def _welcome(self, session: int, version: Version | None, rank: int = 0, num_ranks: int = 1) -> Welcome:
        return Welcome(
            *(session, GENERATION, 0, 100, CHUNK, ("mms",), "reference", None, True, "float32", 0, version, 1.0, 1e6),
            rank=rank,
            num_ranks=num_ranks,
        )

    def _serve(self, say: Callable[..., None], wires: Wires, version: Version) -> None:
        """Honest weights, but for their numbers: some are not finite."""
        manifest = (TensorSpec("weight", "float32", (3, 10)), TensorSpec("bias", "float32", (3,)))
        data = np.full(48, self.fuzz.draw.choice((0.5, float("nan"), float("inf"))), np.float32)  # 120 and 12, by 64
        raw = data.tobytes()
        assert any(isinstance(message, Fetch) for _, message in wires.take())
        say(Weights(version, 0, 1, len(raw), bucket_checksum(raw), manifest, raw), WEIGHTS)
