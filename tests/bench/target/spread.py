"""How sure the smallest budget and a ratio of times are: resampled seeds and resampled rounds."""

import math
import random
import statistics
from collections.abc import Mapping, Sequence

from tests.bench.target.search import ROUNDING, Grid, Known, Rule

NUM_RESAMPLES = 1000
INTERVAL = (0.025, 0.975)


def resampled_budgets(known: Known, rule: Rule, grid: Grid, generator: random.Random) -> list[float]:
    """Smallest budgets in steps, as they might have come out with other seeds; infinite where none would have done.

    What single seeds are off the mean of their budget is pooled over the arm's budgets, as most have few seeds, and
    drawn anew for every budget that was tried.
    """
    means = {place: statistics.fmean(accuracies.values()) for place, accuracies in known.items() if accuracies}
    residuals = [
        (accuracy - means[place]) * math.sqrt(len(accuracies) / (len(accuracies) - 1))
        for place, accuracies in known.items()
        for accuracy in accuracies.values()
        if len(accuracies) > 1
    ] or [0.0]

    def once() -> float:
        enough = [
            place
            for place, mean in means.items()
            if mean + statistics.fmean(generator.choices(residuals, k=len(known[place]))) >= rule.target - ROUNDING
        ]
        return grid.steps(min(enough)) if enough else math.inf

    return [once() for _ in range(NUM_RESAMPLES)]


def speedup_interval(
    plain_budgets: Sequence[float],
    budgets: Sequence[float],
    step_ratios: Sequence[float],
    generator: random.Random,
) -> tuple[float, float]:
    """95 % of the resampled speed-ups: budgets of both arms and, in rounds, the ratio of their seconds a step."""
    speedups = sorted(
        _over(plain, own) * statistics.median(generator.choices(step_ratios, k=len(step_ratios)))
        for plain, own in zip(plain_budgets, budgets, strict=True)
    )
    low, high = (speedups[round(share * (len(speedups) - 1))] for share in INTERVAL)
    return low, high


def known_bounds(failing: int | None, passing: int | None, grid: Grid) -> tuple[int, float]:
    """In steps: more than the first, at most the second, which is infinite while no budget has reached the target."""
    return 0 if failing is None else grid.steps(failing), math.inf if passing is None else grid.steps(passing)


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON: None in place of what is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _over(plain: float, own: float) -> float:
    if math.isinf(own):
        return 0.0 if math.isfinite(plain) else 1.0
    return plain / own
