"""Trainer and scorer in network namespaces of their own, and what the kernel can do to the cable between them.

The trainer's steps during a cut are measured against those of a trainer without scorers that runs at the same time.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from common.security.keygen import make_folder
from tests.chaos.namespaces import ENTER, TRAINER_ADDRESS, Namespaces
from tests.service.processes import Processes, assert_balanced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CUT_S = 10.0
RECOVERY_S = 25.0  # what TCP may wait before it tries again after ten seconds of loss
NUM_CUTS = 2
FEWEST_STEPS = 1_000  # two cuts of an idle machine have twice as many
TIMED = "from tests.chaos.timed_loop import main\nfrom pathlib import Path\nmain(Path(sys.argv[1]), sys.argv[2:])"
SCORER = "from scorer.__main__ import main\nsys.exit(main())"
RUN = ("--data", "digits", "--model", "resnet8", "--batch-size", "32", "--steps", "1000000", "--push-every", "8",
       "--selection.warmup-fraction", "0", "--selection.anneal-fraction", "0", "--service.silence-s", "3")  # fmt: skip
P99_RATIO = 1.2


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    with Namespaces() as made:
        yield made


class Timed:
    """A timed trainer and, once it has ended, its steps."""

    def __init__(self, processes: Processes, name: str, code: str, *flags: str) -> None:
        self._file = processes.folder / f"{name}.json"
        self._process = processes.start(name, "-c", code, str(self._file), *RUN, *flags)

    def begins(self) -> None:
        self._process.says("first step")

    def end(self) -> dict[str, Any]:
        self._process.send(signal.SIGTERM)
        self._process.succeeds()
        return json.loads(self._file.read_text())


@pytest.mark.parametrize(
    ("cut", "heal"),
    [
        (Namespaces.link_down, Namespaces.link_up),
        (Namespaces.black_hole, Namespaces.no_black_hole),
        (Namespaces.starve, Namespaces.feed),
    ],
    ids=["link down", "black hole", "starved"],
)
def test_a_cut_of_ten_seconds_costs_no_step_and_slows_none(
    cut: Callable[[Namespaces], None], heal: Callable[[Namespaces], None], namespaces: Namespaces, processes: Processes
) -> None:
    make_folder(processes.folder / "keys")
    endpoint = f"tcp://{TRAINER_ADDRESS}:5555"
    inside = ENTER.format(name=namespaces.trainer)
    timed = Timed(processes, "timed", inside + TIMED, "--listen", endpoint, "--keys", "keys")
    alone = Timed(processes, "alone", "import sys\n" + TIMED, "--service.start-wait-s", "0")
    access = ("--connect", endpoint, "--keys", "keys", "--backend", "synthetic")
    scorer = processes.start("scorer", "-c", ENTER.format(name=namespaces.scorer) + SCORER, *access)
    timed.begins()
    alone.begins()
    time.sleep(5.0)  # both in full swing: the length of the measurement, not a synchronisation

    cuts = []
    for _ in range(NUM_CUTS):
        cut(namespaces)
        cut_at = time.monotonic()
        time.sleep(CUT_S)
        heal(namespaces)
        cuts.append((cut_at, time.monotonic()))
        time.sleep(RECOVERY_S)
    steps, reference = timed.end(), alone.end()
    scorer.succeeds()

    assert_balanced(steps["summary"])
    spent, spent_alone = (during(one["times"], cuts) for one in (steps, reference))
    scored = [at for origin, at in zip(steps["origins"], steps["times"], strict=True) if origin == "stale"]
    back_s = [min((at - healed for at in scored if at > healed), default=float("inf")) for _, healed in cuts]
    ratio = np.percentile(spent, 99) / np.percentile(spent_alone, 99)
    said = f"{len(spent)} steps, p99 {ratio:.2f} of {np.percentile(spent_alone, 99):.4f} s; back after {back_s} s"
    sys.stdout.write(f"{cut.__name__}: {said}\n")
    assert max(back_s) < RECOVERY_S, said
    if len(spent) < FEWEST_STEPS:
        pytest.skip(f"so few steps have no 99th percentile; this machine is too busy to tell: {said}")
    assert ratio <= P99_RATIO, said


def during(times: list[float], spans: list[tuple[float, float]]) -> np.ndarray:
    """Seconds of each step that was within one of the spans."""
    ends = np.array(times)
    return np.concatenate([np.diff(ends[(ends > start) & (ends < stop)]) for start, stop in spans])
