"""The learning rate of each group of arms: the best of one grid at one budget, in the same way for all groups."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.target.arms import TargetArm
from tests.bench.target.runs import Runs

CLOSE_FRACTION = 0.3  # of the best rate's error: rates whose first seed is further behind get no other seed


@dataclass(frozen=True)
class Tuned:
    """What came of it: mean held-out accuracy by rate, over the seeds that each got."""

    steps: int
    lr: float
    accuracies: Mapping[float, float]

    @property
    def is_at_an_end(self) -> bool:
        """Whether the best rate is the lowest or highest of the grid, so that a better one may lie outside."""
        return len(self.accuracies) > 1 and self.lr in (min(self.accuracies), max(self.accuracies))


def tune(variants: Mapping[float, TargetArm], runs: Runs, steps: int, seeds: Sequence[int]) -> Tuned:
    """The rate with the highest mean accuracy. A rate that is far behind after its first seed gets no other.

    Args:
        variants: one arm by learning rate.
    """
    accuracies = {lr: [runs.make(arm, steps, seeds[0]).accuracy] for lr, arm in variants.items()}
    best = max(values[0] for values in accuracies.values())
    close = [lr for lr, values in accuracies.items() if best - values[0] <= CLOSE_FRACTION * (1 - best)]
    for seed in seeds[1:] if len(close) > 1 else ():
        for lr in close:
            accuracies[lr].append(runs.make(variants[lr], steps, seed).accuracy)
    means = {lr: statistics.mean(values) for lr, values in accuracies.items()}
    return Tuned(steps, max(close, key=lambda lr: (means[lr], -math.log(lr))), means)
