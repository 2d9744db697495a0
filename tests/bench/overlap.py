"""A stale run that waits for its candidates, at the balance point: its wall-clock over max(score, train)."""

import contextlib
import statistics
from dataclasses import dataclass, field
from typing import Any

from tests.bench.arms import SETTLE_STEPS, Arm, Trainee, open_arm, trainer_options
from tests.bench.measure import Cores, Pairs
from tests.bench.scoring import Beside, open_beside

PROBE_STEPS = 20
GRAIN = 8  # candidates


@dataclass
class Balance:
    """Costs of training a step and of scoring a candidate, each with the other core loaded by the other."""

    train_s: list[float] = field(default_factory=list)
    candidate_s: list[float] = field(default_factory=list)

    @property
    def candidates(self) -> float:
        """How many are scored while a step is trained."""
        return statistics.median(
            train_s / candidate_s for train_s, candidate_s in zip(self.train_s, self.candidate_s, strict=True)
        )

    def measure(self, uniform: Arm, beside: Beside, chunk: int, steps: int) -> tuple[float, float]:
        """Adds one measurement: seconds of a step and of a candidate."""
        with beside.scoring() as chunk_s:
            self.train_s.append(uniform.step_s(steps))
        self.candidate_s.append(chunk_s[0] / chunk)
        return self.train_s[-1], self.candidate_s[-1]


def find_balance(workload: dict[str, Any], cores: Cores, *, num: int = 5) -> Balance:
    """The balance point of this machine: plain training on one core, bare scoring on the other."""
    options = trainer_options(workload, mode="uniform")
    chunk = 2 * options.batch_size
    trainee, balance = Trainee(workload), Balance()
    with (
        open_arm(trainee, options) as uniform,
        open_beside(trainer_options(workload), chunk, cores.scorer) as beside,
    ):
        for _ in range(num):
            balance.measure(uniform, beside, chunk, PROBE_STEPS)
    return balance


@dataclass
class OverlapRatio:
    """Pairs of (stale step, the longer of training and scoring) in seconds."""

    pairs: Pairs
    costs: Balance
    candidates: int
    waited_fraction: float = 0.0

    def rows(self) -> list[tuple[str, str]]:
        score_s = self.candidates * statistics.median(self.costs.candidate_s)
        return [
            ("stale step, fallback wait", f"{1e3 * statistics.median(self.pairs.first):.3f} ms"),
            ("training a step beside scoring", f"{1e3 * statistics.median(self.costs.train_s):.3f} ms"),
            ("scoring its candidates beside training", f"{1e3 * score_s:.3f} ms"),
            ("ratio to the longer", f"{self.pairs.ratio:.3f}, quartiles {self.pairs.spread}"),
            ("candidates a step", f"{self.candidates}"),
            ("waited for scores", f"{self.waited_fraction:.1%} of the stale blocks"),
        ]


def measure_overlap(
    workload: dict[str, Any], cores: Cores, candidates: float, *, num_pairs: int, block_s: float
) -> OverlapRatio:
    """The stale run waits for a fixed number of candidates, whose scoring takes about as long as a training step.

    Args:
        candidates: of the balance point; at least a batch of them are taken, in one chunk.
        block_s: about how long a timed block is.
    """
    trainee = Trainee(workload)
    batch_size = trainer_options(workload).batch_size
    chunk = max(batch_size, GRAIN * round(candidates / GRAIN))
    options = trainer_options(workload, candidates=chunk, chunk_size=chunk, fallback="wait")
    with contextlib.ExitStack() as opened:
        uniform = opened.enter_context(open_arm(trainee, trainer_options(workload, mode="uniform")))
        beside = opened.enter_context(open_beside(options, chunk, cores.scorer))
        stale = opened.enter_context(open_arm(trainee, options, scorer_core=cores.scorer))
        steps = max(10, round(block_s / stale.step_s(10)))
        result = OverlapRatio(Pairs([], []), Balance(), chunk)
        waited_s = timed_s = 0.0

        def stale_step_s() -> float:
            nonlocal waited_s, timed_s
            stale.advance(SETTLE_STEPS)
            before = stale.batches._feeder.waited_s
            seconds = stale.advance(steps)
            waited_s += stale.batches._feeder.waited_s - before
            timed_s += seconds
            return seconds / steps

        def longer_s() -> float:
            train_s, candidate_s = result.costs.measure(uniform, beside, chunk, steps)
            return max(train_s, chunk * candidate_s)

        stale_step_s()
        result.pairs = Pairs.measure(num_pairs, stale_step_s, longer_s)
        result.waited_fraction = waited_s / timed_s
        return result
