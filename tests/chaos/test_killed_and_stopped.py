"""Scorers that are killed, stopped and started again, the trainer stopped: every step trained, no chunk lost."""

import signal

import pytest

from tests.chaos.arena import quick_scorer, trainer
from tests.chaos.verdict import assert_nothing_lost
from tests.service.processes import Processes, until

SOON_SILENT = ("--service.silence-s", "1")
NAMESAKE = "import os; os.getpid = lambda: 7\nfrom scorer.__main__ import main\nraise SystemExit(main())"


def test_scorers_killed_in_the_middle_of_chunks_cost_their_leases_and_nothing_else(processes: Processes) -> None:
    endpoint = processes.endpoint()
    training = trainer(processes, endpoint, steps=150)
    for number in range(3):
        victim = quick_scorer(processes, f"victim-{number}", endpoint, chunk_s=0.02)  # it always holds leases
        processes.reaches("out", max(0, processes.step("out")) + 5)
        victim.send(signal.SIGKILL)
        assert victim.code() == -signal.SIGKILL
    quick_scorer(processes, "survivor", endpoint)
    training.succeeds()
    assert assert_nothing_lost(processes, "out") == {"stale": 150}
    summary = processes.summary("out")
    assert summary["leases"]["expired"] >= 3
    assert (summary["events"]["scorers joined"], summary["events"]["scorers left"]) == (4, 3)


def test_a_scorer_that_starts_again_under_its_name_is_another_one(processes: Processes) -> None:
    """In containers every scorer may be process 1 of a host of the same name."""
    endpoint = processes.endpoint()
    training = trainer(processes, endpoint, steps=150)
    backend = ("--backend", "synthetic", "--synthetic-backend.chunk-s", "0.02")
    for number in range(3):
        namesake = processes.start(f"namesake-{number}", "-c", NAMESAKE, "--connect", endpoint, *backend)
        processes.reaches("out", max(0, processes.step("out")) + 5)
        if number < 2:
            namesake.send(signal.SIGKILL)
    quick_scorer(processes, "other", endpoint)
    training.succeeds()
    assert assert_nothing_lost(processes, "out") == {"stale": 150}
    assert training.output.count(":7 joined") == 3
    events = processes.summary("out")["events"]
    assert (events["scorers joined"], events["scorers left"]) == (4, 2)


@pytest.mark.parametrize(
    ("silence", "stopped_s"), [("1", 2.5), pytest.param("10", 12.0, marks=[pytest.mark.slow, pytest.mark.timeout(180)])]
)
def test_a_stopped_scorer_loses_its_session_and_is_welcomed_again_when_it_goes_on(
    silence: str, stopped_s: float, processes: Processes
) -> None:
    endpoint = processes.endpoint()
    training = trainer(processes, endpoint, "--service.silence-s", silence, steps=150)
    stopped = quick_scorer(processes, "stopped", endpoint, chunk_s=0.01)
    processes.reaches("out", 5)
    stopped.send(signal.SIGSTOP)
    training.says(f"silent for {silence} s", within_s=stopped_s + 10)
    steady = quick_scorer(processes, "steady", endpoint, chunk_s=0.01)
    processes.reaches("out", processes.step("out") + 10)
    stopped.send(signal.SIGCONT)
    until(lambda: stopped.output.count("welcomed") == 2, "the scorer to be welcomed again")
    training.succeeds()
    stopped.succeeds()
    steady.succeeds()
    assert assert_nothing_lost(processes, "out") == {"stale": 150}
    summary = processes.summary("out")
    assert summary["events"]["scorers joined"] == 3
    assert summary["leases"]["expired"] >= 1


def test_a_stopped_trainer_goes_on_where_it_was_and_its_scorers_with_it(processes: Processes) -> None:
    endpoint = processes.endpoint()
    training = trainer(processes, endpoint, *SOON_SILENT, steps=150)
    scorer = quick_scorer(processes, "scorer", endpoint)
    processes.reaches("out", 20)
    training.send(signal.SIGSTOP)
    scorer.says("trainer silent for 1 s; looking for it")
    training.send(signal.SIGCONT)
    training.succeeds()
    scorer.succeeds()
    assert assert_nothing_lost(processes, "out") == {"stale": 150}
