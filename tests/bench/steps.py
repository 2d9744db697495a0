"""The time of a stale training step over that of a plain one, the other core loaded alike."""

import contextlib
import statistics
import time
from typing import Any

from tests.bench.arms import SETTLE_STEPS, Arm, Trainee, open_arm, trainer_options
from tests.bench.gaps import idle_fraction
from tests.bench.measure import Cores, Pairs
from tests.bench.sink import Sink, open_sink

CANDIDATES_PER_SELECTED = 3
TRACED_STEPS = 30  # by the profiler, to see where the GPU stands still


class StepRatio:
    """Blocks of stale and of uniform steps, and what shows that the comparison is fair.

    The sink's scorer gets chunks at the rate of the last stale block: the same work beside both, also where a trainer
    asks for less than its scorer could do. It loads weights once; fetching pushed ones is a cost of the stale arm.
    """

    def __init__(self, stale: Arm, uniform: Arm, sink: Sink, steps: int) -> None:
        link = stale.batches._link
        assert link is not None, "a stale arm has a link"
        self._link = link
        self._stale = stale
        self._uniform = uniform
        self._sink = sink
        self._steps = steps
        self._stale_rates: list[float] = []  # chunks a second
        self._sink_rates: list[float] = []
        self._timed_s = 0.0
        self._waited_s = 0.0
        self._io_s = 0.0
        self._timed_steps = self._scored_steps = 0
        self.gap_fraction: float | None = None  # see `measure_gap`
        self._stale_cpu: list[float] = []  # seconds of this process a step, all threads
        self._uniform_cpu: list[float] = []

    def stale_step_s(self) -> float:
        """Seconds of a step, over a block."""
        self._stale.advance(SETTLE_STEPS)
        chunks, waited_s, io_s, scored = self._counters()
        cpu = time.process_time()
        seconds = self._stale.advance(self._steps)
        self._stale_cpu.append((time.process_time() - cpu) / self._steps)
        after = self._counters()
        self._stale_rates.append((after[0] - chunks) / seconds)
        self._waited_s += after[1] - waited_s
        self._io_s += after[2] - io_s
        self._timed_s += seconds
        self._scored_steps += after[3] - scored
        self._timed_steps += self._steps
        return seconds / self._steps

    def uniform_step_s(self) -> float:
        """Seconds of a step, over a block, with the sink's scorer at work."""
        self._sink.set_rate(self._stale_rates[-1])
        self._uniform.advance(SETTLE_STEPS)
        before, started, cpu = self._sink.chunks, time.perf_counter(), time.process_time()
        seconds = self._uniform.advance(self._steps)
        self._uniform_cpu.append((time.process_time() - cpu) / self._steps)
        elapsed_s = time.perf_counter() - started
        self._sink_rates.append((self._sink.chunks - before) / elapsed_s)
        self._sink.set_rate(0.0)
        return seconds / self._steps

    def _counters(self) -> tuple[int, float, float, int]:
        """Chunks that arrived, seconds waited for batches, seconds that the I/O thread worked, steps on scored ones."""
        batches, link = self._stale.batches, self._link
        return link.pool.num_arrived, batches._feeder.waited_s, link._io.busy_s, batches.figures.selected_steps

    @property
    def scored_fraction(self) -> float:
        """Share of the timed stale steps that trained on scored candidates."""
        return self._scored_steps / self._timed_steps

    @property
    def waited_fraction(self) -> float:
        """Share of the stale blocks in which the training thread stood still for a batch."""
        return self._waited_s / self._timed_s

    def measure_gap(self) -> None:
        """On a GPU, the share of stale steps in which it stands still, less that of uniform ones; below 0 is luck."""
        if self._stale.device.type != "cuda":
            return
        self._stale.advance(SETTLE_STEPS)
        stale = idle_fraction(lambda: self._stale.advance(TRACED_STEPS))
        self._sink.set_rate(self._stale_rates[-1])
        self._uniform.advance(SETTLE_STEPS)
        self.gap_fraction = stale - idle_fraction(lambda: self._uniform.advance(TRACED_STEPS))
        self._sink.set_rate(0.0)

    def rows(self, pairs: Pairs) -> list[tuple[str, str]]:
        """For the table."""
        summary = self._stale.batches.summary()
        stall_us = 1e6 * summary["push_stall_s"] / summary["pushes"]
        io_fraction = self._io_s / self._timed_s
        cpu = Pairs(self._stale_cpu[-len(pairs.first) :], self._uniform_cpu[-len(pairs.first) :])
        return [
            ("stale step", f"{1e3 * statistics.median(pairs.first):.3f} ms"),
            ("uniform step, scorer scores into a sink", f"{1e3 * statistics.median(pairs.second):.3f} ms"),
            ("ratio", f"{pairs.ratio:.3f}, quartiles {pairs.spread}"),
            ("ratio of the trainer's CPU time", f"{cpu.ratio:.3f}, quartiles {cpu.spread}; blind to other processes"),
            ("scored beside stale steps", f"{statistics.median(self._stale_rates):.0f} chunks/s"),
            ("scored beside uniform steps", f"{statistics.median(self._sink_rates):.0f} chunks/s"),
            ("candidates per selected", f"{self._stale.batches.figures.candidates_per_selected:.1f}"),
            ("stale steps on scored candidates", f"{self.scored_fraction:.1%}"),
            ("waited for batches", f"{self.waited_fraction:.2%} of the stale blocks"),
            ("stall of a push", f"{stall_us:.0f} us"),
            ("I/O thread at work", f"{io_fraction:.1%} of the stale blocks"),
            *([] if self.gap_fraction is None else [("GPU idle beyond uniform steps", f"{self.gap_fraction:.2%}")]),
        ]


def measure_step_ratio(
    workload: dict[str, Any],
    cores: Cores,
    *,
    num_pairs: int,
    block_s: float,
    candidates_per_selected: int = CANDIDATES_PER_SELECTED,
) -> tuple[Pairs, StepRatio]:
    """Pairs of (stale, uniform) seconds a step, and what goes with them.

    Default options but for warm-up and annealing, so that every stale step selects, and for the candidates, as many as
    one scorer can sustain: with `auto` it scores as much as it can, more than a sink takes in on its core, and the
    comparison would be of unequal loads.

    Args:
        block_s: about how long a timed block is.
        candidates_per_selected: in one chunk a step.
    """
    trainee = Trainee(workload)
    batch_size = trainer_options(workload).batch_size
    sustained = candidates_per_selected * batch_size
    stale_options = trainer_options(workload, candidates=sustained, chunk_size=sustained)
    with contextlib.ExitStack() as opened:
        uniform = opened.enter_context(open_arm(trainee, trainer_options(workload, mode="uniform")))
        stale = opened.enter_context(open_arm(trainee, stale_options, scorer_core=cores.scorer))
        sink = opened.enter_context(open_sink(stale_options, cores.scorer))
        steps = max(10, round(block_s / stale.step_s(30)))
        bench = StepRatio(stale, uniform, sink, steps)
        bench.stale_step_s()
        bench.uniform_step_s()
        pairs = Pairs.measure(num_pairs, bench.stale_step_s, bench.uniform_step_s)
        bench.measure_gap()
        return pairs, bench
