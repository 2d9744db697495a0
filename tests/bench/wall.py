"""A stale run's wall-clock over the fresh run's at equal steps, beside the best that overlap could do."""

import contextlib
import statistics
from dataclasses import dataclass, field
from typing import Any

from tests.bench.arms import SETTLE_STEPS, Arm, Trainee, open_arm, trainer_options
from tests.bench.measure import Cores, Pairs
from tests.bench.scoring import Scoring

BATCH_SIZE = 32
CHUNK = 2 * BATCH_SIZE


@dataclass
class WallRatio:
    """Pairs of (stale, fresh) seconds a step; beside each the bare costs of a step's training and scoring."""

    pairs: Pairs
    candidates: int
    train_s: list[float] = field(default_factory=list)
    score_s: list[float] = field(default_factory=list)
    staleness: float = 0.0
    waited_fraction: float = 0.0

    @property
    def best(self) -> float:
        """max(score, train) / (score + train), median over the pairs."""
        costs = zip(self.score_s, self.train_s, strict=True)
        return statistics.median(max(cost) / sum(cost) for cost in costs)

    def rows(self) -> list[tuple[str, str]]:
        return [
            ("fresh step", f"{1e3 * statistics.median(self.pairs.second):.3f} ms"),
            ("stale step", f"{1e3 * statistics.median(self.pairs.first):.3f} ms"),
            ("ratio", f"{self.pairs.ratio:.3f}, quartiles {self.pairs.spread}"),
            ("best possible ratio", f"{self.best:.3f}"),
            ("training a step, alone", f"{1e3 * statistics.median(self.train_s):.3f} ms"),
            ("scoring a step's candidates, alone", f"{1e3 * statistics.median(self.score_s):.3f} ms"),
            ("candidates a step", f"{self.candidates} for {BATCH_SIZE} selected"),
            ("staleness", f"{self.staleness:.1f} steps"),
            ("waited for scores", f"{self.waited_fraction:.1%} of the stale blocks"),
        ]


def measure_wall_ratio(workload: dict[str, Any], cores: Cores, *, num_pairs: int, block_s: float) -> WallRatio:
    """Stale waits for its candidates, a fixed number whose scoring takes about as long as a training step.

    Args:
        block_s: about how long a timed block is.
    """
    trainee = Trainee(workload)
    scoring = Scoring(trainer_options(workload), CHUNK)
    with contextlib.ExitStack() as opened:
        uniform = opened.enter_context(
            open_arm(trainee, trainer_options(workload, mode="uniform", batch_size=BATCH_SIZE))
        )
        chunks = _balance(uniform, scoring)
        candidates = {"candidates": CHUNK * chunks, "batch_size": BATCH_SIZE}
        fresh = opened.enter_context(open_arm(trainee, trainer_options(workload, mode="fresh", **candidates)))
        options = trainer_options(workload, chunk_size=CHUNK, fallback="wait", **candidates)
        stale = opened.enter_context(open_arm(trainee, options, scorer_core=cores.scorer))
        steps = max(10, round(block_s / stale.step_s(10)))
        result = WallRatio(Pairs([], []), CHUNK * chunks)
        waited_s = timed_s = 0.0

        def stale_step_s() -> float:
            nonlocal waited_s, timed_s
            stale.advance(SETTLE_STEPS)
            before = stale.batches._feeder.waited_s
            seconds = stale.advance(steps)
            waited_s += stale.batches._feeder.waited_s - before
            timed_s += seconds
            return seconds / steps

        def fresh_step_s() -> float:
            result.train_s.append(uniform.step_s(max(5, steps // 2)))
            result.score_s.append(chunks * scoring.chunk_s(max(5, chunks * steps // 2)))
            return fresh.step_s(steps)

        result.pairs = Pairs.measure(num_pairs, stale_step_s, fresh_step_s)
        result.staleness = stale.batches.figures.staleness_mean
        result.waited_fraction = waited_s / timed_s
        return result


def _balance(uniform: Arm, scoring: Scoring) -> int:
    """Chunks whose scoring takes about as long as a training step."""
    ratios = [uniform.step_s(20) / scoring.chunk_s(20) for _ in range(5)]
    return max(1, round(statistics.median(ratios)))
