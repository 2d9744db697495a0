"""The scorer's side of the protocol with a trainer of several ranks: one session with each, weights from the first."""

import pytest
from msgspec.structs import replace

from common.protocol import (
    Candidates,
    Error,
    Goodbye,
    Heartbeat,
    Lease,
    PredictorState,
    Reject,
    Revoke,
    Version,
    VersionHint,
    encode,
)
from scorer.dialogue import STRIKES_AT_ONCE
from scorer.inbox import Work
from scorer.link import Link
from tests.service.peers import HandMadeTrainer, answer, until
from tests.service.several_ranks import (
    SeveralRanks,
    W,
    give,
    is_greeted,
    is_served,
    num_in_session,
    take,
)
from tests.service.test_link_protocol import GENERATION, feedback, lease, make_link, version

pytestmark = pytest.mark.usefixtures("quick_ranks")


# -- the way it should be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_a_scorer_joins_every_rank_that_rank_0_names_and_each_gets_its_own_scores(scheme: str) -> None:
    with SeveralRanks(scheme) as ranks, make_link(ranks[0]) as link:
        ranks.join(link)
        for rank in range(W):
            give(ranks[rank], Lease(1, GENERATION, 4 * rank, 4 * rank + 4, b"", 0, 60.0))
        for rank in range(W):
            taken = link.next_work()
            assert isinstance(taken, Work)
            assert isinstance(taken.order, Lease)
            assert (taken.welcome.rank, taken.order.lease) == (rank, 1)
            link.answer(taken.order, answer(taken.order, version(0)))
            assert ranks[rank].hear(Candidates).finite_scores()[0].tolist() == [4 * rank + i for i in range(4)]


def test_the_lease_that_is_due_first_is_served_first_whichever_rank_it_is_of(ranks: SeveralRanks, link: Link) -> None:
    ranks.join(link)
    for rank, number, due_s, oldest_step in ((0, 1, 60, 0), (2, 2, 45, 0), (1, 3, 30, 0), (1, 4, 1, 5), (0, 5, 40, 0)):
        give(ranks[rank], replace(lease(number, oldest_step=oldest_step), deadline_s=float(due_s)))
    served = []
    for _ in range(4):
        served.append(take(link))
        link.give_back(lease(served[-1][1]))
    assert served == [(1, 3), (0, 5), (2, 2), (0, 1)], "lease 4 wants newer weights"


def test_each_rank_is_told_its_own_leases_and_the_progress_of_the_whole(ranks: SeveralRanks, link: Link) -> None:
    ranks.join(link)
    for rank in range(W):
        give(ranks[rank], lease(10 + rank))
    assert take(link) == (0, 10)
    link.answer(lease(10), answer(lease(10), version(0)))
    for rank, held in ((0, ()), (1, (11,)), (2, (12,))):
        while (beat := ranks[rank].hear(Heartbeat)).progress != 1:
            pass
        assert (beat.leases, beat.resident) == (held, version(0))


def test_rank_0_alone_is_believed_about_versions(ranks: SeveralRanks, link: Link) -> None:
    ranks.join(link)
    ranks[1].say(VersionHint(version(9), 1000))
    ranks[2].say(Heartbeat(0, Version(GENERATION + 1, 9), (), 9))
    assert is_served(ranks[1], link)
    assert is_served(ranks[2], link)
    assert not ranks[0].weights.poll(0)
    assert not link.watched.ranks.state.events["malformed messages"]


def test_a_predictor_learns_from_all_ranks_and_answers_each(ranks: SeveralRanks) -> None:
    with make_link(ranks[0], backend="predictor") as link:
        for rank in range(W):
            ranks.welcome(rank, version=version(0) if rank == 0 else None)
        until(lambda: num_in_session(link) == W, "all sessions")
        for rank in (2, 1):
            ranks[rank].say(feedback(rank))
            give(ranks[rank], lease(rank))
        ranks[1].say(PredictorState(1, bytes(4)))
        ranks[1].say(Revoke((1,)))
        while 1 in ranks[1].hear(Heartbeat).leases:
            pass
        taken = [link.next_work() for _ in range(3)]
        assert [(type(one.order).__name__, one.welcome.rank) for one in taken] == [  # type: ignore[union-attr]
            ("PredictorState", 1), ("Feedback", 2), ("Lease", 2),
        ]  # fmt: skip
        assert link.next_work().welcome.rank == 1  # type: ignore[union-attr]
        link.send(PredictorState(7, bytes(4)))
        assert ranks[1].hear(PredictorState).updates == 7


# -- sessions that end ------------------------------------------------------------------------------------------------


def test_a_rank_that_falls_silent_costs_its_own_session_and_is_greeted_again(ranks: SeveralRanks, link: Link) -> None:
    ranks.join(link)
    give(ranks[2], lease(1))
    assert take(link) == (2, 1)
    ranks[2].say(Error("unknown-session", "say HELLO first"))
    ranks.welcome(2, session=2, silence_s=0.05)
    ranks[2].say(lease(1))
    until(lambda: link.watched.ranks.state.events["silences of the trainer"] == 1, "the end of that session")
    ranks.welcome(2, session=3)
    link.answer(lease(1), answer(lease(1), version(0)))
    assert is_served(ranks[2], link, 2), "and not what was scored in an earlier session"
    assert is_served(ranks[0], link)
    assert link.watched.ranks.state.events["results nobody wanted"] == 1


@pytest.mark.parametrize("how", ["unknown", "silent"])
def test_where_rank_0_is_lost_all_sessions_end_until_it_names_the_ranks_anew(
    how: str, ranks: SeveralRanks, link: Link
) -> None:
    ranks.join(link)
    give(ranks[1], lease(1))
    assert take(link) == (1, 1)
    if how == "unknown":
        ranks[0].say(Error("unknown-session", "say HELLO first"))
    else:
        with link.changed:
            link.watched.ranks.first.heard_at -= 1000
    for rank in (1, 2):
        assert "rank 0" in ranks[rank].hear(Goodbye).reason
    until(lambda: num_in_session(link) == 0, "the end of all sessions")
    ranks.join(link, session=2)
    ranks[1].say(lease(1))
    link.answer(lease(1), answer(lease(1), version(0)))  # scored for the session of before
    assert take(link) == (1, 1), "it is still to be scored"


def test_a_goodbye_of_rank_0_ends_the_scorer_and_the_others_are_told(ranks: SeveralRanks) -> None:
    with make_link(ranks[0]) as link:
        ranks.join(link)
        ranks[0].say(Goodbye("the trainer has ended"))
        assert ranks[0].hear(Goodbye).reason == "heard"
        assert link.next_work() is None
    for rank in (1, 2):
        ranks[rank].hear(Goodbye)


LAST_WORDS = {
    "a goodbye": encode(Goodbye("this rank ends")),
    "a rejection": encode(Reject("capacity", "no more scorers")),
    "much nonsense": [b"noise"],
}


@pytest.mark.parametrize("words", LAST_WORDS)
def test_a_rank_that_wants_no_scorer_is_left_alone_until_rank_0_names_the_ranks_anew(
    words: str, ranks: SeveralRanks, link: Link
) -> None:
    ranks.join(link)
    give(ranks[1], lease(1))
    for _ in range(int(STRIKES_AT_ONCE)):
        ranks[1].control.send_multipart([ranks[1].peer, *LAST_WORDS[words]])
    if words != "a rejection":
        ranks[1].hear(Goodbye)
    until(lambda: num_in_session(link) == W - 1, "the end of one session")
    assert not is_greeted(ranks[1], ranks[0])
    assert is_served(ranks[0], link)
    assert is_served(ranks[2], link)
    ranks[0].say(Error("unknown-session", "say HELLO first"))
    ranks.join(link, session=2)
    assert is_served(ranks[1], link)


def test_a_rank_that_is_not_there_yet_is_greeted_as_soon_as_it_is(ranks: SeveralRanks, link: Link) -> None:
    endpoint = ranks[2].endpoint
    ranks[2].control.close(0)
    ranks.join_first(link)
    ranks.welcome(1)
    assert is_served(ranks[1], link)
    with HandMadeTrainer(endpoint=endpoint) as late:
        late.welcome(rank=2, num_ranks=W)
        assert is_served(late, link)
