"""The services of two ranks over real sockets: rank 0 has weights and names the other; both lease for themselves."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from common.config import TrainerOptions
from common.data.sources import open_source
from common.models import build_model
from common.protocol import Error, Feedback, Heartbeat, Lease, Version, Welcome, encode
from tests.service.peers import HandMadeScorer, Sockets, answer, hello, receive, until
from tests.trainer.ranks.groups import on_every_rank
from trainer.link import ScorerLink
from trainer.ranks.group import Group
from trainer.stream import SelectedBatches

NUM, GENERATION = 121, 5
OPTIONS: dict[str, Any] = {
    "data": "synthetic", "synthetic": {"num_samples": NUM}, "model": "small", "mode": "stale", "method": "loss",
    "steps": 1000, "batch_size": 8, "device": "cpu", "fallback": "wait", "selection": {"warmup_fraction": 0.0},
    "log": {"margins": False},
}  # fmt: skip

Open = Callable[..., list[ScorerLink]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens the batches of as many ranks, on a thread each as they wait for each other; gives their links."""
    closing = contextlib.ExitStack()

    def open_ranks(size: int = 2, generation: int | None = GENERATION, **settings: Any) -> list[ScorerLink]:
        options = TrainerOptions.model_validate({**OPTIONS, **settings})

        def enter(group: Group) -> SelectedBatches:
            source = open_source(options)
            model = build_model(options.model, source.sample, seed=0)
            return SelectedBatches(options, source, model, generation=generation, group=group).__enter__()

        links = []
        for batches in on_every_rank(size, enter):
            assert isinstance(batches, SelectedBatches), batches
            closing.callback(batches.__exit__, None, None, None)
            assert batches._link is not None
            links.append(batches._link)
        return links

    with closing:
        yield open_ranks


def joined(scorer: HandMadeScorer, **changes: Any) -> Welcome:
    return scorer.join(**{"backend": "synthetic", **changes})


def test_over_ipc_each_rank_welcomes_beside_rank_0_and_leases_its_own_order(opened: Open) -> None:
    links = opened()
    endpoint = links[0].endpoint
    assert links[1].endpoint == endpoint, "people are told one"
    with HandMadeScorer(endpoint) as first, HandMadeScorer(f"{endpoint}-1") as second:
        welcomes = [joined(scorer) for scorer in (first, second)]
        assert [(one.rank, one.num_ranks, one.ranks, one.weights_port) for one in welcomes] == [
            (0, 2, (), 0),
            (1, 2, (), 0),
        ]
        assert [one.version for one in welcomes] == [Version(GENERATION, 0), None]
        assert {(one.generation, one.num_samples) for one in welcomes} == {(GENERATION, NUM)}
        for link, scorer in zip(links, (first, second), strict=True):
            lease = scorer.hear(Lease)
            assert (lease.start, lease.stop) == (0, 16)
            scorer.say(answer(lease, Version(GENERATION, 0)))
            until(lambda link=link: link.pool.num_arrived == 1, "the pool to take it")


def test_over_tcp_rank_0_hands_out_where_the_others_are(opened: Open) -> None:
    links = opened(listen="tcp://127.0.0.1:*", insecure=True)
    with Sockets() as sockets:
        welcome = welcomed_at(links[0].endpoint, sockets)
        assert len(welcome.ranks) == 1
        assert welcome.weights_port > 0
        other = welcomed_at(f"tcp://{welcome.ranks[0]}", sockets)
    assert (other.rank, other.num_ranks, other.ranks, other.weights_port) == (1, 2, (), 0)


def welcomed_at(endpoint: str, sockets: Sockets) -> Welcome:
    control = sockets.open(zmq.DEALER)
    control.connect(endpoint)
    control.send_multipart(encode(hello(backend="synthetic")))
    return receive(control, Welcome)[1]


def test_a_push_moves_the_leases_of_rank_1_and_tells_scorers_nothing(opened: Open) -> None:
    link = opened()[1]
    with HandMadeScorer(f"{link.endpoint}-1") as scorer:
        joined(scorer)
        link.push(64)
        until(lambda: link.pool.announced == Version(GENERATION, 64), "the version to count")
        assert scorer.hear(Heartbeat).resident is None
    assert link.figures.summary()["pushes"] == 0
    assert not link.push_wanted


def test_rank_1_takes_scores_of_any_version_that_can_exist_and_of_no_other(opened: Open) -> None:
    link = opened()[1]
    link.pool.advance(40)
    with HandMadeScorer(f"{link.endpoint}-1") as scorer:
        joined(scorer)
        scorer.say(answer(scorer.hear(Lease), Version(GENERATION, 41)))
        until(lambda: link.pool.num_arrived == 1, "weights of the step before to be taken")
        scorer.say(answer(scorer.hear(Lease), Version(GENERATION, 400)))
        assert "never announced" in scorer.hear(Error).text
    assert link.pool.num_arrived == 1


def test_a_predictor_learns_of_samples_under_the_ids_of_all(opened: Open) -> None:
    link = opened(method="biased-importance")[1]
    with HandMadeScorer(f"{link.endpoint}-1") as scorer:
        joined(scorer, backend="predictor", num_samples=NUM, num_classes=4, fingerprint=fingerprint(link))
        histories = np.full((2, 10), np.nan, dtype=np.float32)
        link.learn(np.array([0, 59]), np.ones(2, dtype=np.float32), histories)
        assert scorer.hear(Feedback).ids.as_numpy().tolist() == [1, 119]


def fingerprint(link: ScorerLink) -> dict[str, str]:
    return link.service.reception._terms.fingerprint


def test_without_a_generation_all_ranks_have_that_of_rank_0(opened: Open) -> None:
    links = opened(generation=None)
    assert len({link._generation for link in links}) == 1
