"""A training step beside many scorers, beside one, and beside none, in turns; who of the many got how much to do.

Real: a training run, its link, one session for each scorer over ipc, leases, heartbeats, weights that every scorer
fetches. Not real: the scorers sleep instead of scoring, share a core at its lowest priority and a few interpreters, and
no network or encryption is in between.
"""

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.devices import pinned
from common.processes import private_folder
from tests.bench.arms import SETTLE_STEPS, Arm, Trainee, trainer_options
from tests.bench.crowd import Crowd, open_crowd
from tests.bench.measure import Cores
from tests.bench.thread_clocks import tasks_cpu_s, thread_cpu_s, zmq_threads
from tests.trainer.lease_events import fairness
from trainer.stream import SelectedBatches

PER_SELECTED, CHUNKS_PER_STEP = 10, 5  # the defaults: candidates of a step for each selected sample, in chunks of 2·b
START_S = 120.0
HEARD_S = 1.5  # within which a heartbeat of each scorer comes
SILENCE_S = 60.0  # the scorers share a core with whatever else there is


@dataclass
class Totals:
    """Of the timed blocks of an arm."""

    step_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    steps: int = 0
    scored_steps: int = 0
    chunks: int = 0
    pushes: int = 0
    skipped: int = 0
    bytes_out: int = 0
    io_s: float = 0.0
    zmq_s: float = 0.0
    crowd_s: float = 0.0

    def share(self, seconds: float) -> float:
        """Of a core."""
        return seconds / max(self.elapsed_s, 1e-9)


class ScaleArm:
    """A run with so many synthetic scorers; 0 for plain training, without a link."""

    def __init__(self, arm: Arm, num: int, crowd: Crowd | None, tasks: set[int]) -> None:
        self._arm = arm
        self._crowd = crowd
        self._tasks = tasks
        self.num = num
        self.totals = Totals()

    @property
    def link(self) -> Any:
        """The trainer's end of the service."""
        return self._arm.batches._link

    def block(self, seconds: float) -> float:
        """Seconds of a step, over a block of about so many. Its scorers stand still afterwards."""
        if self._crowd is not None:
            self._crowd.go_on()
        self._arm.advance(SETTLE_STEPS)
        steps = max(1, round(seconds * SETTLE_STEPS / self._arm.advance(SETTLE_STEPS)))
        before = self._counters()
        taken_s = self._arm.advance(steps)
        after = self._counters()
        self.stand_still()
        totals = self.totals
        totals.step_s.append(taken_s / steps)
        totals.elapsed_s += taken_s
        totals.steps += steps
        for name, value in after.items():
            setattr(totals, name, getattr(totals, name) + value - before[name])
        return taken_s / steps

    def stand_still(self) -> None:
        """Its scorers do nothing until the next block."""
        if self._crowd is not None:
            self._crowd.stand_still()

    def idle_share(self, seconds: float) -> float:
        """Share of a core that the threads that talk need while nobody trains nor scores: ticks, beats unheard."""
        before, started = self._talking_s(), time.perf_counter()
        time.sleep(seconds)
        return (self._talking_s() - before) / (time.perf_counter() - started)

    def _talking_s(self) -> float:
        return thread_cpu_s(self.link._io._thread) + tasks_cpu_s(self._tasks)

    def served(self) -> dict[int, int]:
        """Chunks scored by each scorer, by its session; takes as long as until each has told."""
        assert self._crowd is not None, "an arm without scorers"
        self._crowd.go_on()
        time.sleep(HEARD_S)
        return {session.id: session.progress for session in self.link.service.sessions}

    def _counters(self) -> dict[str, Any]:
        counters: dict[str, Any] = {"scored_steps": self._arm.batches.figures.selected_steps}
        if self._crowd is None:
            return counters
        link = self.link
        return counters | {
            "chunks": link.pool.num_arrived,
            "pushes": link._publisher.pushed,
            "skipped": link._publisher.skipped,
            "bytes_out": link.service.traffic.bytes_out,
            "io_s": thread_cpu_s(link._io._thread),
            "zmq_s": tasks_cpu_s(self._tasks),
            "crowd_s": self._crowd.cpu_s,
        }


@contextlib.contextmanager
def open_scale_arm(trainee: Trainee, num: int, *, chunk_s: float, cores: Cores) -> Iterator[ScaleArm]:
    """An arm whose scorers have all joined and whose first chunks are there.

    Args:
        chunk_s: what a chunk takes each of them.
    """
    more: dict[str, Any] = {"mode": "uniform"}
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        batch_size = trainer_options(trainee.workload).batch_size
        if num:
            more = {"mode": "stale", "listen": f"ipc://{folder}/t", "service": {"silence_s": SILENCE_S}}
            more |= {"candidates": PER_SELECTED * batch_size, "wire": "bf16"}  # what but float32 scorers get
            more |= {"chunk_size": PER_SELECTED * batch_size // CHUNKS_PER_STEP}
        options = trainer_options(trainee.workload, **more)
        others = zmq_threads()
        batches = opened.enter_context(SelectedBatches(options, trainee.source, trainee.model))
        own = zmq_threads() - others
        crowd = None
        if batches.endpoint is not None:
            crowd = opened.enter_context(open_crowd(batches.endpoint, num, chunk_s=chunk_s, core=cores.scorer))
            _await_scorers(batches, num)
        arm = Arm(trainee, batches)
        arm.advance(2 * SETTLE_STEPS)
        yield ScaleArm(arm, num, crowd, own)


def _await_scorers(batches: SelectedBatches, num: int) -> None:
    link = batches._link
    assert link is not None, "an arm with scorers has a link"
    deadline = time.monotonic() + START_S
    while link.service.sessions.num_resident < num:
        if time.monotonic() > deadline:
            joined = link.service.sessions.num_resident
            raise RuntimeError(f"{joined} of {num} synthetic scorers joined and fetched weights in {START_S:.0f} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class Scaled:
    """What came of it. Ratios are of steps within one round of blocks.

    Attributes:
        none, one, many: totals of plain training, beside one scorer, beside many.
        served: chunks of each of the many, in the timed and the settling blocks.
        idle_fraction: of a core, for the I/O threads of the many while their run and they stand still, as they do
            during the blocks of the others.
        weights_bytes: of a version.
    """

    none: Totals
    one: Totals
    many: Totals
    num: int
    served: list[int]
    idle_fraction: float
    weights_bytes: int

    @property
    def fairness(self) -> float:
        return fairness(self.served)

    def ratios(self, over: Totals) -> list[float]:
        """A step beside many over one of another arm, by round.

        The trainer of the many goes on looking after them during the other's blocks: what that needs of a core is added
        to the step of the many, as if all of it were taken from training.
        """
        return [
            (1 + self.idle_fraction) * many / other for many, other in zip(self.many.step_s, over.step_s, strict=True)
        ]

    def ratio(self, over: Totals) -> float:
        return statistics.median(self.ratios(over))


def measure_service_at_scale(
    workload: dict[str, Any], cores: Cores, *, num: int, chunk_s: float, rounds: int, block_s: float
) -> Scaled:
    """Blocks of the three arms in turns, each time beginning with another one.

    The one scorer is as fast as the many together, so that both runs get the same chunks at the same rate and differ in
    the number of sessions alone.
    """
    trainee = Trainee(workload)
    with contextlib.ExitStack() as opened:
        arms = [
            opened.enter_context(open_scale_arm(trainee, scorers, chunk_s=seconds, cores=cores))
            for scorers, seconds in ((0, 0.0), (1, chunk_s / num), (num, chunk_s))
        ]
        none, one, many = arms
        opened.enter_context(pinned(cores.trainer))  # the thread that trains; those that were begun go where they like
        before = many.served()
        for arm in arms:
            arm.stand_still()
        for index in range(rounds):
            for arm in arms[index % 3 :] + arms[: index % 3]:
                arm.block(block_s)
        idle = many.idle_share(max(2.0, block_s))
        after = many.served()
        served = [count - before.get(session, 0) for session, count in after.items()]
        weights_bytes = many.link._publisher.manifests["bf16"].total_bytes
        return Scaled(none.totals, one.totals, many.totals, num, served, idle, weights_bytes)
