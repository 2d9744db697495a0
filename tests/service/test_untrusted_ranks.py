"""What a scorer makes of ranks that are broken or hostile, over real sockets."""

from typing import Any

import pytest
from msgspec import msgpack

from common.protocol import TAG_BYTES, Error, Goodbye, Hello, encode
from scorer.link import Link
from tests.common.protocol.test_sessions import NAMED
from tests.service.peers import HandMadeTrainer, until
from tests.service.several_ranks import SeveralRanks, W, is_served, num_in_session
from tests.service.test_link_protocol import GENERATION, make_link, version

pytestmark = pytest.mark.usefixtures("quick_ranks")


def refused(trainer: HandMadeTrainer) -> str:
    error = trainer.hear(Error)
    assert error.code == "malformed"
    return error.text


@pytest.mark.parametrize("address", ["ipc:///tmp/x", "tcp://127.0.0.1:5", "../x", "localhost:5", "0.0.0.0:5", "[::]:5"])
def test_a_rank_is_no_path_no_name_and_no_scheme(address: str) -> None:
    with SeveralRanks("tcp") as ranks, make_link(ranks[0]) as link:
        ranks[0].hear(Hello)
        head = bytes(encode(NAMED)[0])
        values = msgpack.decode(head[TAG_BYTES:])
        values[-1][1] = address
        ranks[0].control.send_multipart([ranks[0].peer, head[:TAG_BYTES] + msgpack.encode(values)])
        assert f"got {address!r}" in refused(ranks[0])
        assert num_in_session(link) == 0


WRONG_NAMES: dict[str, tuple[str, dict[str, Any], str]] = {
    "addresses over ipc": ("ipc", {"ranks": ("127.0.0.1:5", "127.0.0.1:6")}, "ipc names no addresses of ranks: got 2"),
    "no addresses over tcp": ("tcp", {"ranks": ()}, "tcp names all other ranks: got 0, of 2"),
    "another machine, without keys": ("tcp", {"ranks": ("10.0.0.2:5", "127.0.0.1:6")}, "not on loopback"),
    "another rank than 0": ("ipc", {"rank": 2}, "WELCOME of rank 2 of 3; --connect names that of rank 0"),
}


@pytest.mark.parametrize(("scheme", "changes", "says"), WRONG_NAMES.values(), ids=WRONG_NAMES)
def test_a_welcome_of_rank_0_that_cannot_be_is_refused(scheme: str, changes: dict[str, Any], says: str) -> None:
    with SeveralRanks(scheme) as ranks, make_link(ranks[0]) as link:
        ranks.welcome(0, version=version(0), **changes)
        assert says in refused(ranks[0])
        until(lambda: num_in_session(link) == 0, "no session")
        assert sum(1 for _ in link.watched.ranks) == 1


@pytest.mark.parametrize(
    "changes", [{"generation": GENERATION + 1}, {"rank": 2}, {"rank": 0}, {"num_ranks": W + 1}], ids=str
)
def test_a_rank_that_is_not_the_one_that_rank_0_named_is_not_served(
    changes: dict[str, Any], ranks: SeveralRanks, link: Link
) -> None:
    ranks.join_first(link)
    ranks.welcome(1, **changes)
    assert "where rank 0 named rank 1 of 3, generation 7" in ranks[1].hear(Goodbye).reason
    ranks.welcome(2)
    assert is_served(ranks[2], link)
    ranks.welcome(1)
    assert is_served(ranks[1], link), "it is asked again"
