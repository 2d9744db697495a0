"""A thousand peers that come and go in every way leave nothing behind in the trainer's process."""

import os
import signal
from pathlib import Path

import pytest

from common.protocol import Goodbye, Lease, encode
from tests.chaos.arena import CHUNKS, DATA, SELECTING, quick_scorer
from tests.service.peers import HandMadeScorer, hello
from tests.service.processes import Processes, assert_balanced

FOREIGN = {"backend": "synthetic", "fingerprint": {}, "num_samples": 0, "num_classes": 0}
NUM = 1_000
SETTLED = 300  # peers after which buffers have the size that they keep
GROWTH_MIB = 4.0


@pytest.mark.slow
def test_a_thousand_connects_and_disconnects_leave_memory_and_files_as_they_were(processes: Processes) -> None:
    endpoint = processes.endpoint()
    flags = (*DATA, *CHUNKS, *SELECTING, "--log.eval-every", "0", "--steps", "10000000", "--push-every", "64")
    training = processes.trainer("out", *flags, "--listen", endpoint)
    quick_scorer(processes, "steady", endpoint).says("welcomed")
    processes.reaches("out", 50)
    for number in range(SETTLED):
        come_and_go(endpoint, number)
    files, rss_mib = num_files(training.pid), resident_mib(training.pid)
    for number in range(NUM):
        come_and_go(endpoint, number)
    processes.reaches("out", processes.step("out") + 50)
    assert num_files(training.pid) <= files + 8, "a connection that has just closed may still be counted"
    assert resident_mib(training.pid) - rss_mib < GROWTH_MIB
    training.send(signal.SIGTERM)
    assert training.code() == 128 + signal.SIGTERM
    assert_balanced(processes.summary("out"))


def come_and_go(endpoint: str, number: int) -> None:
    """In one of five ways: in order, with leases in hand, unheard, unannounced, talking nonsense."""
    with HandMadeScorer(endpoint) as peer:
        match number % 5:
            case 0:
                peer.join(**FOREIGN)
                peer.say(Goodbye("enough"))
            case 1:
                peer.join(**FOREIGN)
                peer.hear(Lease)
            case 2:
                peer.say(hello(**FOREIGN))
            case 3:
                pass
            case 4:
                peer.control.send_multipart([*encode(hello(**FOREIGN))[:1], b"\xc1"])


def num_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
