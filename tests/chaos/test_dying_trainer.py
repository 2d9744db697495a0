"""The trainer is killed while weights are under way; it goes on at its endpoint with the same scorers."""

import signal

from tests.chaos.arena import CHUNKS, DATA, RECORDED, SELECTING
from tests.chaos.relay import WEIGHTS, Relay
from tests.chaos.verdict import assert_nothing_lost
from tests.service.processes import QUICK, Processes, until

WIDE = '''
from torch import nn

def make_wide(num_classes):
    """4 MB, so that a transfer can be stopped in its middle."""
    return nn.Sequential(nn.Linear(2, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.BatchNorm1d(1000),
                         nn.Linear(1000, num_classes))
'''
MIDDLE_BYTES = 2_000_000
MODEL = (*DATA, "--model", "wide:make_wide")
LOCKSTEP = ("--push-every", "1", "--max-staleness", "0", "--fallback", "wait", "--steps", "60")


def test_a_trainer_killed_while_it_sends_weights_goes_on_exactly_with_the_same_scorer(processes: Processes) -> None:
    """Steps that are trained a second time are equal to the first: nothing of half a version is ever used.

    The scorer sees both lives of the trainer through a relay, which keeps the rest of the first one's version from it.
    """
    (processes.folder / "wide.py").write_text(WIDE)
    endpoint = processes.endpoint()
    exact = (*MODEL, *CHUNKS, *SELECTING, *RECORDED, *LOCKSTEP, "--log.log-every", "1", "--listen", endpoint)
    training = processes.trainer("out", *exact, "--checkpoint.every", "7")
    training.says("scorers connect with")
    with Relay(endpoint) as relay:
        scorer = processes.scorer("scorer", relay.endpoint, *MODEL)
        processes.reaches("out", 20)
        relay.stall_after[WEIGHTS] = relay.to_scorers[WEIGHTS] + MIDDLE_BYTES
        until(lambda: relay.is_stalled, "weights under way")
        training.send(signal.SIGKILL)
        assert training.code() == -signal.SIGKILL
        first = processes.trace("out")
        again = processes.start("again", "-m", "trainer", "--out", "out", *QUICK, *exact, "--resume")
        again.says("scorers connect with")
        relay.heal()
        again.succeeds()
        scorer.succeeds()
    assert assert_nothing_lost(processes, "out") == {"stale": 60}
    assert len(first) >= 10
    assert processes.trace("out")[: len(first)] == first
    assert [life in scorer.output for life in ("generation 1 at", "generation 2 at")] == [True, True]
