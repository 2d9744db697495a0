"""Who gets which lease, held against a look at all sessions and all leases, whatever happens to sessions meanwhile."""

import collections
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import numpy as np
import pytest
import torch

from common.protocol import PROTOCOL_VERSION, Hello, Lease, Message, Version
from common.transport import CONTROL, Channel
from tests.trainer.chunks import GENERATION, make_pool
from tests.trainer.lease_events import CHUNK, TERMS
from trainer.audits import Audits
from trainer.chunks import ScoredChunk
from trainer.issuing import Issuing
from trainer.publisher import Publisher
from trainer.sessions import Session, Sessions

MOST = 3  # leases that a scorer may hold
OWN_TERMS = replace(TERMS, leases_per_scorer=MOST, num_ranks=1000, lease_s=10.0, silence_s=1000.0)


def some_remembered(start: int, stop: int) -> np.ndarray:
    """Of each third chunk nothing is to be scored, of the next a half."""
    return np.arange(start, stop) % (3 * CHUNK) >= CHUNK + CHUNK // 2


class Side:
    """A pool and its sessions; what they send is noted.

    Args:
        plainly: leases are issued by the definition.

    Attributes:
        sent: (name of the scorer, message).
        deaf: routing ids that cannot be reached.
        deaf_end: whether their sessions then end, as those of a service do.
    """

    def __init__(self, *, plainly: bool) -> None:
        self.plainly = plainly
        self.pool = make_pool(chunk_size=CHUNK, chunks_per_step=4, plan_visit=some_remembered)
        self.audits = Audits(
            0.3, batch_size=CHUNK, generation=GENERATION, seed=0, score_name="mms", lowest_is_hard=True,
            selects_best=True, lease_s=10.0,
        )  # fmt: skip
        publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=0)
        events: collections.Counter[str] = collections.Counter()
        self.sessions = Sessions(OWN_TERMS, self.pool, publisher, self.send, events, self.audits)
        self.issuing = Issuing(OWN_TERMS, self.pool, self.sessions, self.send, audits=self.audits)
        self.sent: list[tuple[str, Message]] = []
        self.deaf: set[bytes] = set()
        self.deaf_end = True
        self._last_lease: collections.Counter[int] = collections.Counter()  # by session

    def send(self, peer: bytes, message: Message, channel: Channel) -> bool | None:
        session = self.sessions.get(peer)
        assert session is not None
        self.sent.append((session.name, message))
        if peer not in self.deaf:
            return None
        if self.deaf_end:
            self.sessions.end(session, "cannot be reached", dead=True)
        return False

    def issue(self) -> None:
        if self.plainly:
            self._issue_plainly()
        else:
            self.issuing.issue_leases()
        self.check()

    def _issue_plainly(self) -> None:
        sessions = list(self.sessions)
        for session in sessions:
            if not session.stuck and (lease := self.audits.next_lease(session.id, self.announced_step)) is not None:
                session.leases[lease.lease] = lease
                self.send(session.peer, lease, CONTROL)
        credits = MOST * len(self.sessions)
        free = [session for session in self.sessions if not session.stuck]
        while free:
            held = self.held()
            session = min(free, key=lambda one: (held[one.id], self._last_lease[one.id]))
            if held[session.id] >= MOST or (issued := self.pool.issue(session.id, credits)) is None:
                return
            lease = self.issuing._lease(issued)
            session.leases[lease.lease] = lease
            self._last_lease[session.id] = lease.lease
            if self.send(session.peer, lease, CONTROL) is False:
                free.remove(session)

    @property
    def announced_step(self) -> int:
        return -1 if self.pool.announced is None else self.pool.announced.step

    def held(self) -> collections.Counter[int]:
        return collections.Counter(held.session for held in self.pool._book.outstanding.values())

    def check(self) -> None:
        counted = {one.session: one.num_held for one in self.pool.holders._places.values()}
        held = self.held()
        assert counted == {session.id: held[session.id] for session in self.sessions}
        may_get = {one.id for one in self.sessions if not one.stuck and held[one.id] < MOST}
        assert {one.session for one in self.pool.holders._line} == may_get

    # -- what may happen; `draw` is the same on both sides ------------------------------------------------------------

    def join(self, draw: random.Random, number: int) -> None:
        known = [session.incarnation for session in self.sessions]
        back = draw.choice(known) if known and draw.random() < 0.2 else number
        hello = Hello(PROTOCOL_VERSION, "", f"s{number}", back, "cpu", "float32", "torch", {}, 0, 0)
        welcome = OWN_TERMS.welcome(1000 - number, wire="float32", weights_port=0, version=None)
        self.sessions.begin(str(number % 17).encode(), hello, welcome)

    def end(self, draw: random.Random, number: int) -> None:
        for session in self._any(draw):
            self.sessions.end(session, "says so", dead=False)

    def answer(self, draw: random.Random, number: int) -> None:
        for session in self._any(draw):
            for lease in self._any_of(session, draw):
                chunk = ScoredChunk(
                    lease.start, lease.stop, self.pool.announced or Version(GENERATION, 0),
                    {"mms": torch.zeros(CHUNK)}, self.pool._book._wanted.get(lease.start),
                )  # fmt: skip
                del session.leases[lease.lease]
                if lease.is_audit:
                    self.audits.lose(session.id)
                elif draw.random() < 0.1:
                    self.pool.expire([lease.lease])  # it makes no sense
                else:
                    self.pool.put(session.id, lease.lease, chunk)
                self.sessions.progressed(session, session.progress + 1, session.resident)

    def give_back(self, draw: random.Random, number: int) -> None:
        for session in self._any(draw):
            self.sessions.give_back(session, [lease.lease for lease in self._any_of(session, draw)])

    def judge(self, draw: random.Random, number: int) -> None:
        """One falls silent or makes no progress."""
        issues = self.pool.oldest_issues()
        late = max(issues.values(), default=0.0) + 10 * OWN_TERMS.lease_s
        silent = draw.random() < 0.3
        unlucky = [session.id for session in self._any(draw)]
        for session in self.sessions:
            session.heard_at = late - (2 * OWN_TERMS.silence_s if silent and session.id in unlucky else 0.0)
            session.progress_at = 0.0 if session.id in unlucky else late
        self.sessions.judge(late)

    def move(self, draw: random.Random, number: int) -> None:
        for session in self._any(draw):
            self.sessions.progressed(session, session.progress + 1, session.resident)

    def deafen(self, draw: random.Random, number: int) -> None:
        """Two can no longer be reached, from now on and until this happens again."""
        self.deaf = {session.peer for session in [*self._any(draw), *self._any(draw)]}
        self.deaf_end = draw.random() < 0.5

    def step(self, draw: random.Random, number: int) -> None:
        step = self.pool.next_step
        if taken := self.pool.take(step):
            self.audits.choose(taken, step)
        elif draw.random() < 0.3:
            self.pool.advance(step + 1)
        if draw.random() < 0.7:
            self.pool.announce(Version(GENERATION, self.pool.next_step))

    def _any(self, draw: random.Random) -> Iterator[Session]:
        pick = draw.random()
        sessions = list(self.sessions)
        yield from sessions[int(pick * len(sessions)) :][:1]

    def _any_of(self, session: Session, draw: random.Random) -> Iterator[Lease]:
        pick = draw.random()
        leases = list(session.leases.values())
        yield from leases[int(pick * len(leases)) :][:1]


ACTS = ["join"] * 3 + ["answer"] * 12 + ["step"] * 5 + ["end", "give_back", "judge", "move", "move", "deafen"]


@pytest.mark.parametrize("seed", range(12))
def test_scorers_get_the_leases_that_a_look_at_all_of_them_would_give(seed: int) -> None:
    choice = random.Random(seed)
    sides = [Side(plainly=False), Side(plainly=True)]
    most_sessions = 0
    for number in range(300):
        act, key = choice.choice(ACTS), choice.random()
        for side in sides:
            getattr(side, act)(random.Random(key), number)
            side.issue()
        assert sides[0].sent == sides[1].sent, act
        most_sessions = max(most_sessions, len(sides[0].sessions))
    leases = [message for _, message in sides[0].sent if isinstance(message, Lease)]
    assert most_sessions > MOST
    assert len(leases) > 100
    assert any(lease.is_audit for lease in leases)
    sides[0].pool.finish()
    sides[0].issue()
    assert not any(place.num_held for place in sides[0].pool.holders._places.values())


def test_a_lease_is_given_without_a_look_at_the_other_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    def looks_at_all(self: Sessions) -> NoReturn:
        raise AssertionError("all sessions were looked at")

    side = Side(plainly=False)
    for number in range(5):
        side.join(random.Random(number), number)
    side.pool.announce(Version(GENERATION, 0))
    monkeypatch.setattr(Sessions, "__iter__", looks_at_all)
    side.issuing.issue_leases()
    assert len(side.sent) == MOST * 4
