"""A network that delays, stands still and breaks between a trainer and its scorers; a relay stands in for it."""

from tests.chaos.arena import quick_scorer, trainer
from tests.chaos.relay import CONTROL, WEIGHTS, Relay
from tests.chaos.verdict import assert_nothing_lost
from tests.service.processes import Processes, until


def test_delays_stalls_and_cuts_cost_leases_and_no_step(processes: Processes) -> None:
    """Under `wait` nothing but scored candidates is trained on: each time the scorer is back by itself."""
    endpoint = processes.endpoint()
    training = trainer(processes, endpoint, "--service.silence-s", "1", steps=150)
    training.says("scorers connect with")
    with Relay(endpoint) as relay:
        scorer = quick_scorer(processes, "scorer", relay.endpoint)
        processes.reaches("out", 10)
        relay.delay_s = 0.05
        processes.reaches("out", processes.step("out") + 5)
        relay.heal()
        for channel in (CONTROL, WEIGHTS):
            relay.stall_after[channel] = relay.to_scorers[channel]
            until(lambda: relay.is_stalled, f"something on the {channel} channel")
            if channel == CONTROL:
                scorer.says("trainer silent for 1 s; looking for it")
            relay.heal()
            processes.reaches("out", processes.step("out") + 5)
        relay.cut()
        welcomes = scorer.output.count("welcomed")
        relay.heal()
        until(lambda: scorer.output.count("welcomed") > welcomes, "the scorer to be welcomed again")
        training.succeeds()
        scorer.succeeds()
    assert assert_nothing_lost(processes, "out") == {"stale": 150}
    assert processes.summary("out")["leases"]["expired"] >= 1
