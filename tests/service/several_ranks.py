"""A trainer of several ranks for a Link, each rank driven by a test message by message."""

import contextlib
from typing import Any

from common.endpoints import rank_endpoint
from common.protocol import Candidates, Heartbeat, Hello, Lease, decode
from scorer.inbox import Work
from scorer.link import Link
from tests.service.peers import HandMadeTrainer, answer, until
from tests.service.test_link_protocol import lease, load, version

W = 3


class SeveralRanks:
    """`W` of them, by rank. On tcp rank 0 names the others."""

    def __init__(self, scheme: str = "ipc") -> None:
        self._scheme = scheme
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> "SeveralRanks":
        first = self._opened.enter_context(HandMadeTrainer(self._scheme))
        self._ranks = [first]
        for rank in range(1, W):
            endpoint = rank_endpoint(first.endpoint, rank) if self._scheme == "ipc" else None
            self._ranks.append(self._opened.enter_context(HandMadeTrainer(self._scheme, endpoint)))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._opened.close()

    def __getitem__(self, rank: int) -> HandMadeTrainer:
        return self._ranks[rank]

    def welcome(self, rank: int, /, **changes: Any) -> None:
        """Answer the next HELLO."""
        if rank == 0 and self._scheme == "tcp":
            changes = {"ranks": tuple(other.endpoint.removeprefix("tcp://") for other in self._ranks[1:]), **changes}
        self[rank].welcome(**{"rank": rank, "num_ranks": W, **changes})

    def join_first(self, link: Link, session: int = 1) -> None:
        """A session with rank 0, and version 0 resident."""
        self.welcome(0, session=session, version=version(0))
        self[0].serve_whole(version(0))
        assert load(link) == version(0)

    def join(self, link: Link, session: int = 1) -> None:
        """Sessions with all ranks, and version 0 resident."""
        self.join_first(link, session)
        for rank in range(1, W):
            self.welcome(rank, session=session)
        until(lambda: num_in_session(link) == W, "all sessions")


def num_in_session(link: Link) -> int:
    return link.watched.ranks.num_in_session


def give(rank: HandMadeTrainer, given: Lease) -> None:
    """Say a lease, and wait until it has arrived."""
    rank.say(given)
    while given.lease not in rank.hear(Heartbeat).leases:
        pass


def take(link: Link) -> tuple[int, int]:
    """Take the next lease: of which rank it is, and its number."""
    taken = link.next_work()
    assert isinstance(taken, Work)
    assert isinstance(taken.order, Lease)
    return taken.welcome.rank, taken.order.lease


def is_served(rank: HandMadeTrainer, link: Link, number: int = 77) -> bool:
    """Whether a lease of this rank is scored and answered."""
    rank.say(lease(number))
    assert take(link)[1] == number
    link.answer(lease(number), answer(lease(number), version(0)))
    return rank.hear(Candidates).lease == number


def is_greeted(rank: HandMadeTrainer, witness: HandMadeTrainer) -> bool:
    """Whether a HELLO comes while another rank hears some heartbeats, one for each tick of the scorer."""
    _waiting(rank)
    for _ in range(6):
        witness.hear(Heartbeat)
    return any(isinstance(message, Hello) for message in _waiting(rank))


def _waiting(rank: HandMadeTrainer) -> list[object]:
    """What has arrived, and is not waited for."""
    messages: list[object] = []
    while rank.control.poll(0):
        messages.append(decode(rank.control.recv_multipart()[1:]))
    return messages
