"""Which scorers count as stuck: those that keep leases for longer than any that works would."""

import collections
from dataclasses import replace

import pytest
import torch

from common.protocol import PROTOCOL_VERSION, Hello, Version
from tests.trainer.chunks import GENERATION, make_pool
from tests.trainer.lease_events import CHUNK, TERMS
from trainer.issuing import AHEAD_S, QUICK_TIMES, Issuing
from trainer.publisher import Publisher
from trainer.sessions import Sessions


def test_a_scorer_that_is_quick_holds_more_leases_and_fewer_again_when_it_is_not() -> None:
    pool = make_pool(chunk_size=CHUNK, chunks_per_step=4, max_staleness=9, stop_step=99)
    publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=0)
    sessions = Sessions(TERMS, pool, publisher, lambda *message: None, collections.Counter())
    issuing = Issuing(TERMS, pool, sessions, lambda *message: None)
    for number in (1, 2):
        hello = Hello(PROTOCOL_VERSION, "", f"s{number}", number, "cpu", "int8", "torch", {}, 0, 0)
        welcome = TERMS.welcome(number, wire="float32", weights_port=0, version=None)
        sessions.begin(f"s{number}".encode(), hello, welcome)
    quick, slow = sessions
    pool.announce(Version(GENERATION, 0))
    issuing.issue_leases()
    assert [len(one.leases) for one in (quick, slow)] == [TERMS.leases_per_scorer] * 2
    issuing.note_chunk(quick, 0.0)
    issuing.note_chunk(slow, 1.0)
    issuing.issue_leases()
    assert [len(one.leases) for one in (quick, slow)] == [QUICK_TIMES * TERMS.leases_per_scorer, 2]
    assert pool.holders.credits == (QUICK_TIMES + 1) * TERMS.leases_per_scorer
    for _ in range(20):
        issuing.note_chunk(quick, AHEAD_S / 3)
    assert pool.holders.credits == 3 + TERMS.leases_per_scorer, "as many as a tenth of a second's work"
    for _ in range(20):
        issuing.note_chunk(quick, 1.0)
    assert pool.holders.credits == 2 * TERMS.leases_per_scorer


@pytest.mark.parametrize(("precision", "backend"), [("float32", "torch"), ("int8", "proxy")])
def test_whoever_does_one_lease_at_a_time_holds_no_more_however_quick(precision: str, backend: str) -> None:
    pool = make_pool(chunk_size=CHUNK, chunks_per_step=4, max_staleness=9, stop_step=99)
    publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=0)
    sessions = Sessions(TERMS, pool, publisher, lambda *message: None, collections.Counter())
    issuing = Issuing(TERMS, pool, sessions, lambda *message: None)
    hello = Hello(PROTOCOL_VERSION, "", "s", 1, "cpu", precision, backend, {}, 0, 0)
    session = sessions.begin(b"s", hello, TERMS.welcome(1, wire="float32", weights_port=0, version=None))
    issuing.note_chunk(session, 0.0)
    assert pool.holders.credits == TERMS.leases_per_scorer


@pytest.mark.parametrize(("max_staleness", "held"), [(20, [5, 1, 0]), (4, [2, 2, 1])])
def test_quick_scorers_leave_room_for_others_whatever_becomes_of_them(max_staleness: int, held: list[int]) -> None:
    pool = make_pool(chunk_size=CHUNK, chunks_per_step=1, max_staleness=max_staleness, stop_step=99)
    publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=0)
    sessions = Sessions(TERMS, pool, publisher, lambda *message: None, collections.Counter())
    issuing = Issuing(TERMS, pool, sessions, lambda *message: None)
    pool.announce(Version(GENERATION, 0))
    for number in (1, 2, 3):
        hello = Hello(PROTOCOL_VERSION, "", f"s{number}", number, "cpu", "int8", "torch", {}, 0, 0)
        welcome = TERMS.welcome(number, wire="float32", weights_port=0, version=None)
        session = sessions.begin(f"s{number}".encode(), hello, welcome)
        for _ in range(3):
            issuing.note_chunk(session, 0.0)
            issuing.issue_leases()
    assert [len(session.leases) for session in sessions] == held, "of five or six: nobody answers any"


def test_a_lease_may_wait_for_those_of_all_ranks_before_its_scorer_counts_as_stuck() -> None:
    terms = replace(TERMS, num_ranks=6, lease_s=10.0, silence_s=1000.0)
    pool = make_pool(chunk_size=CHUNK, chunks_per_step=1, stop_step=9)
    publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=0)
    sessions = Sessions(terms, pool, publisher, lambda *message: None, collections.Counter())
    issuing = Issuing(terms, pool, sessions, lambda *message: None)
    hello = Hello(PROTOCOL_VERSION, "", "s", 1, "cpu", "float32", "synthetic", {}, 0, 0)
    session = sessions.begin(b"s", hello, terms.welcome(1, wire="float32", weights_port=0, version=None))
    pool.announce(Version(GENERATION, 0))
    issuing.issue_leases()
    issued = pool.oldest_issues()[session.id]
    for waited_s, is_stuck in [(41, False), (139, False), (141, True)]:  # two leases of each rank, 10 s each
        session.progress_at = issued + waited_s  # it answers other ranks
        sessions.judge(issued + waited_s)
        assert session.stuck is is_stuck
