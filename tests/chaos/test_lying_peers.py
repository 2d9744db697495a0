"""A peer that answers twice, in another order, too late, for somebody else or out of an earlier life of the trainer."""

from common.protocol import Error, Goodbye, Lease, Return, Version
from tests.chaos.arena import quick_scorer, trainer
from tests.chaos.verdict import assert_nothing_lost
from tests.service.peers import HandMadeScorer, answer, hello
from tests.service.processes import Processes

FOREIGN = {"backend": "synthetic", "fingerprint": {}, "num_samples": 0, "num_classes": 0}


def test_duplicate_reordered_late_foreign_and_old_answers_are_never_trained_on(processes: Processes) -> None:
    endpoint = processes.endpoint()
    training = trainer(processes, endpoint, "--service.leases-per-scorer", "4")
    training.says("scorers connect with")
    with HandMadeScorer(endpoint) as liar, HandMadeScorer(endpoint) as other:
        welcome = liar.join(**FOREIGN)
        now = Version(welcome.generation, 0)
        first, second, third, fourth = (liar.hear(Lease) for _ in range(4))
        liar.say(answer(third, now))  # reordered
        liar.say(answer(first, now))
        liar.say(answer(first, now))  # duplicate
        liar.say(answer(third, now))
        other.join(**FOREIGN)
        other.say(answer(second, now))  # foreign
        liar.say(Return((fourth.lease,)))
        liar.say(answer(fourth, now))  # late
        liar.say(answer(second, Version(now.generation - 1, 0)))  # of an earlier life
        assert "answer lease 2, generation 1" in liar.hear(Error).text
        liar.say(Goodbye("enough lies"))
        other.say(Goodbye("enough lies"))
        quick_scorer(processes, "honest", endpoint)
        training.succeeds()
    summary = processes.summary("out")
    assert assert_nothing_lost(processes, "out") == {"stale": 300}
    assert summary["refused"] == {"no such lease": 4}
    assert summary["events"]["malformed messages"] == 1
    assert summary["leases"]["expired"] >= 2  # the one given back, the one answered out of an earlier life


def test_a_storm_of_hellos_takes_no_chunk_and_no_scorer_away(processes: Processes) -> None:
    endpoint = processes.endpoint()
    training = trainer(processes, endpoint)
    quick_scorer(processes, "honest", endpoint).says("welcomed")
    with HandMadeScorer(endpoint) as stormy:
        for _ in range(2_000):
            stormy.say(hello(**FOREIGN))
    training.succeeds()
    assert assert_nothing_lost(processes, "out") == {"stale": 300}
