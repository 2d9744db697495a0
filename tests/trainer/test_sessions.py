"""Which scorers count as stuck: those that keep leases for longer than any that works would."""

import collections
from dataclasses import replace

import torch

from common.protocol import PROTOCOL_VERSION, Hello, Version
from tests.trainer.chunks import GENERATION, make_pool
from tests.trainer.lease_events import CHUNK, TERMS
from trainer.publisher import Publisher
from trainer.sessions import Sessions


def test_a_lease_may_wait_for_those_of_all_ranks_before_its_scorer_counts_as_stuck() -> None:
    terms = replace(TERMS, num_ranks=6, lease_s=10.0, silence_s=1000.0)
    pool = make_pool(chunk_size=CHUNK, chunks_per_step=1, stop_step=9)
    publisher = Publisher(torch.nn.Linear(1, 1), None, GENERATION, num_slots=0)
    sessions = Sessions(terms, pool, publisher, lambda *message: None, collections.Counter())
    hello = Hello(PROTOCOL_VERSION, "", "s", 1, "cpu", "float32", "synthetic", {}, 0, 0)
    session = sessions.begin(b"s", hello, terms.welcome(1, wire="float32", weights_port=0, version=None))
    pool.announce(Version(GENERATION, 0))
    sessions.issue_leases()
    issued = pool.oldest_issues()[session.id]
    for waited_s, is_stuck in [(41, False), (139, False), (141, True)]:  # two leases of each rank, 10 s each
        session.progress_at = issued + waited_s  # it answers other ranks
        sessions.judge(issued + waited_s)
        assert session.stuck is is_stuck
