"""Any order of starting, and every way of leaving: the run goes on, and the account of leases balances."""

import re
import signal

import pytest
import torch
import zmq

from common.protocol import Hello, decode
from tests.service.processes import WITHIN_S, Processes, assert_balanced

DATA = ("--data", "synthetic", "--synthetic.num-samples", "512")
WAITING = (*DATA, "--candidates", "128", "--chunk-size", "64", "--fallback", "wait", "--log.log-every", "5")


def await_hello(endpoint: str) -> None:
    """Stands in for a trainer until a scorer says HELLO, then is gone."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.bind(endpoint)
        assert router.poll(int(WITHIN_S * 1000)), "no scorer says HELLO"
        _, *frames = router.recv_multipart()
    assert isinstance(decode(frames), Hello)


def test_a_scorer_may_start_before_its_trainer(processes: Processes) -> None:
    endpoint = processes.endpoint()
    scorer = processes.scorer("early", endpoint, *DATA)
    await_hello(endpoint)
    trainer = processes.trainer("out", *WAITING, "--steps", "40", "--listen", endpoint)
    trainer.succeeds()
    scorer.succeeds()
    summary = processes.summary("out")
    assert summary["selected_fraction"] == 1.0
    assert_balanced(summary)


def test_a_trainer_may_start_before_its_scorer_and_ends_it_over_tcp_too(processes: Processes) -> None:
    trainer = processes.trainer("out", *WAITING, "--steps", "40", "--insecure", "--listen", "tcp://127.0.0.1:*")
    trainer.says("waiting up to 60 s for the first scored chunk")
    found = re.search(r"scorer --connect (tcp://127\.0\.0\.1:\d+) --insecure\n", trainer.output)
    assert found, f"no endpoint to connect to is named:\n{trainer.output}"
    scorer = processes.scorer("late", found[1], "--insecure", *DATA)
    trainer.succeeds()
    scorer.succeeds()
    assert processes.summary("out")["selected_fraction"] == 1.0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_second_scorer_joins_and_carries_on_when_the_first_leaves(
    number: signal.Signals, code: int, processes: Processes
) -> None:
    """Under `wait` nothing but scored candidates is trained on, so the steps after the first one left are the other's.

    The first one is slow, so that it holds leases when it leaves.
    """
    endpoint = processes.endpoint()
    trainer = processes.trainer("out", *WAITING, "--steps", "60", "--listen", endpoint)
    first = processes.synthetic_scorer("first", endpoint, "--synthetic-backend.chunk-s", "0.1")
    processes.reaches("out", 5)
    second = processes.synthetic_scorer("second", endpoint)
    second.says("welcomed")
    first.send(number)
    left_at = processes.step("out")
    assert first.code() == code
    assert left_at < 50, "too late to tell who carries on"
    trainer.succeeds()
    second.succeeds()
    summary = processes.summary("out")
    assert (summary["steps"], summary["fallbacks"], summary["selected_fraction"]) == (60, 0, 1.0)
    assert summary["events"]["scorers joined"] == 2
    assert summary["events"]["scorers left"] == 1
    assert summary["leases"]["expired"] >= 1
    assert_balanced(summary)


def test_a_run_goes_on_without_any_scorer_and_saves_when_it_is_stopped(processes: Processes) -> None:
    endpoint = processes.endpoint()
    trainer = processes.trainer(
        "out", *DATA, "--steps", "1000000", "--selection.warmup-fraction", "0", "--listen", endpoint
    )
    only = processes.synthetic_scorer("only", endpoint)
    processes.reaches("out", 50)
    only.send(signal.SIGKILL)
    assert only.code() == -signal.SIGKILL
    processes.reaches("out", processes.step("out") + 200)
    another = processes.synthetic_scorer("another", endpoint)
    another.says("welcomed")
    processes.reaches("out", processes.step("out") + 200)

    trainer.send(signal.SIGTERM)
    assert trainer.code() == 128 + signal.SIGTERM
    another.succeeds()
    summary = processes.summary("out")
    assert summary["stopped_by"] == "SIGTERM"
    assert "Stopped early by a signal" in summary["words"]
    assert 450 <= summary["steps"] < 1_000_000
    assert summary["accuracy"] > 0.25  # four classes
    assert_balanced(summary)
    assert all(torch.isfinite(value).all() for value in torch.load(processes.folder / "out" / "model.pt").values())


def test_ctrl_c_during_the_wait_for_the_first_scorer_ends_the_trainer(processes: Processes) -> None:
    trainer = processes.trainer("out", *DATA, "--steps", "100")
    trainer.says("waiting up to 60 s for the first scored chunk")
    trainer.send(signal.SIGINT)
    assert trainer.code() == 128 + signal.SIGINT
    assert processes.summary("out")["steps"] == 0


def test_a_scorer_outlives_a_killed_trainer_and_serves_the_next_one_with_its_weights(processes: Processes) -> None:
    """Two exact runs of one seed are equal as far as the first one got.

    The scorer holds the first trainer's latest weights, of a later step than any that the second has at its start.
    """
    endpoint = processes.endpoint()
    lockstep = ("--push-every", "1", "--max-staleness", "0", "--selection.warmup-fraction", "0")
    exact = (*WAITING, *lockstep, "--steps", "300", "--log.trace", "--listen", endpoint)
    killed = processes.trainer("killed", *exact)
    scorer = processes.scorer("scorer", endpoint, *DATA)
    processes.reaches("killed", 60)
    killed.send(signal.SIGKILL)
    assert killed.code() == -signal.SIGKILL
    processes.trainer("next", *exact).succeeds()
    scorer.succeeds()
    first, second = processes.trace("killed"), processes.trace("next")
    assert 20 <= len(first) < len(second) == 300  # what stood in the killed process's buffers is lost
    assert second[: len(first)] == first
    events = processes.summary("next")["events"]
    assert events == {"scorers joined": 1}
