"""Scorers that hang in Python: one that goes on beating and one whose interpreter is held, both back in the end."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.chaos import holding
from tests.chaos.arena import CHUNKS, RECORDED, SELECTING
from tests.chaos.verdict import assert_nothing_lost
from tests.service.processes import Processes, until

DATA = ("--data", "holding:open_held", "--synthetic.num-samples", str(holding.NUM_SAMPLES))
WAITING = (*DATA, *CHUNKS, *SELECTING, *RECORDED, "--fallback", "wait", "--steps", "1000000")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "bounds", "said", "event"),
    [
        ("loop", ("--service.lease-s", "1.5"), "made no progress for", "scorers stuck"),
        ("4", ("--service.silence-s", "1.5"), "left: silent for", "scorers left"),
    ],
    ids=["busy loop", "interpreter held"],
)
def test_a_scorer_that_hangs_in_python_loses_its_leases_until_it_moves_again(
    how: str, bounds: tuple[str, str], said: str, event: str, processes: Processes
) -> None:
    shutil.copy(Path(holding.__file__), processes.folder)
    endpoint = processes.endpoint()
    training = processes.trainer("out", *WAITING, "--listen", endpoint, *bounds)
    hung, other = (processes.scorer(name, endpoint, *DATA) for name in ("hung", "other"))
    hung.says("welcomed")
    other.says("welcomed")
    processes.reaches("out", 20)
    order = holding.hold(processes.folder, hung.pid, how)
    until(lambda: not order.exists(), "the scorer to hang")
    training.says(said)
    processes.reaches("out", processes.step("out") + 20)  # the other one has its leases

    holding.release(processes.folder, hung.pid)
    if how != "loop":
        until(lambda: hung.output.count("welcomed") == 2, "the scorer to be welcomed again")
    other.send(signal.SIGTERM)
    other.succeeds()
    processes.reaches("out", processes.step("out") + 20)  # on scores of the one that hung
    training.send(signal.SIGTERM)
    assert training.code() == 128 + signal.SIGTERM
    hung.succeeds()
    assert_nothing_lost(processes, "out")
    summary = processes.summary("out")
    assert summary["events"][event] >= 1
    assert summary["leases"]["expired"] >= 1
