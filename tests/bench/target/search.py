"""The smallest budget that reaches a target, found with few runs: which run comes next, given those that are known.

Budgets lie on a geometric grid and are tried by leaps until one reaches the target and one below it does not, then by
halves. Seeds come in turn, and no more of them once the outcome is plain: `slack` is how far a seed not yet run may
lie from those that have. The budget that is found is always confirmed with all its seeds.

Held-out accuracy is taken to rise with the budget, but for noise: where a smaller budget fails by chance, the next
one that holds is found, in every arm alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROUNDING = 1e-9  # a mean that is the target but for its last digit reaches it
Known = Mapping[int, Mapping[int, float]]  # held-out accuracy at the end of a run, by place on the grid and seed


@dataclass(frozen=True)
class Rule:
    """When a budget counts as enough: the mean over the seeds 0 .. num_seeds - 1 is at least the target.

    Attributes:
        slack_fraction: a seed may differ from others by this share of the error that the target leaves.
    """

    target: float
    num_seeds: int = 3
    slack_fraction: float = 0.2

    def verdict(self, accuracies: Sequence[float]) -> bool | None:
        """Whether the budget reaches the target; None while the seeds that have run leave it open."""
        num_left = self.num_seeds - len(accuracies)
        if num_left <= 0:
            return sum(accuracies) / len(accuracies) >= self.target - ROUNDING
        if not accuracies:
            return None
        needed = (self.num_seeds * self.target - sum(accuracies)) / num_left
        slack = self.slack_fraction * (1 - self.target)
        if needed > min(1.0, max(accuracies) + slack):
            return False
        return True if needed < min(accuracies) - slack else None


@dataclass(frozen=True)
class Grid:
    """Budgets in steps: `first` times `growth` to the power of 0, 1, ...; places count from 0."""

    first: int = 20
    growth: float = 1.15
    last_steps: int = 20_000
    leap: int = 5  # places, about a factor of two

    def steps(self, place: int) -> int:
        return round(self.first * self.growth**place)

    def place(self, steps: int) -> int:
        """Of the budget nearest to this many steps."""
        return min(range(self.last + 1), key=lambda place: abs(self.steps(place) - steps))

    @property
    def last(self) -> int:
        place = 0
        while self.steps(place + 1) <= self.last_steps:
            place += 1
        return place


@dataclass(frozen=True)
class Bracket:
    """What the known runs say, as places on the grid.

    Attributes:
        failing: the largest below `passing` that misses the target; None if none has.
        passing: the smallest that reaches it; None if none has.
        open: those that some seeds leave open.
    """

    failing: int | None
    passing: int | None
    open: tuple[int, ...]

    @classmethod
    def of(cls, known: Known, rule: Rule) -> "Bracket":
        verdicts = {place: rule.verdict(list(accuracies.values())) for place, accuracies in known.items()}
        passing = min((place for place, verdict in verdicts.items() if verdict is True), default=None)
        below = [
            place for place, verdict in verdicts.items() if verdict is False and (passing is None or place < passing)
        ]
        is_open = tuple(sorted(place for place, verdict in verdicts.items() if verdict is None))
        return cls(max(below, default=None), passing, is_open)

    def is_settled(self, known: Known, rule: Rule) -> bool:
        """Whether nothing is left to run for the smallest budget that reaches the target."""
        return (
            self.passing is not None
            and self.passing - (-1 if self.failing is None else self.failing) == 1
            and len(known[self.passing]) >= rule.num_seeds
        )


def next_run(known: Known, rule: Rule, grid: Grid, *, start: int) -> tuple[int, int] | None:
    """Place and seed of the run to make next; None once the budget is found, or the largest one misses the target.

    Args:
        start: place that is tried first.
    """
    bracket = Bracket.of(known, rule)
    passing, failing = bracket.passing, bracket.failing
    unsettled = [place for place in bracket.open if passing is None or place < passing]
    if unsettled:
        place = unsettled[-1]
    elif passing is None:
        if failing == grid.last:
            return None
        place = min(grid.last, start if failing is None else failing + grid.leap)
    elif bracket.is_settled(known, rule):
        return None
    elif passing - (-1 if failing is None else failing) == 1:
        place = passing
    elif failing is None:
        place = max(0, passing - grid.leap)
    else:
        place = (passing + failing) // 2
    return place, len(known.get(place, {}))
