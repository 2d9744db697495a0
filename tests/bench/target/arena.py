"""The search in all arms, then rounds in which the arms take turns at their budgets and are timed."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.target.arms import TargetArm
from tests.bench.target.runs import Outcome, Runs
from tests.bench.target.search import Bracket, Grid, Rule, next_run

OUT_OF_THE_RUNNING = 1.3  # a plain arm this much slower than the best of them, by the search, is not timed again


@dataclass
class Standing:
    """What is known of one arm.

    Attributes:
        outcomes: of the search, by place on the grid and seed.
        rounds: at the budget that was found, with seeds of their own; one for each round that was run.
    """

    arm: TargetArm
    outcomes: dict[int, dict[int, Outcome]] = field(default_factory=dict)
    rounds: list[Outcome] = field(default_factory=list)

    @property
    def known(self) -> dict[int, dict[int, float]]:
        return {
            place: {seed: outcome.accuracy for seed, outcome in seeds.items()} for place, seeds in self.outcomes.items()
        }

    def bracket(self, rule: Rule) -> Bracket:
        return Bracket.of(self.known, rule)

    def found(self, rule: Rule) -> int | None:
        """Place of the smallest budget that reaches the target; None while the search goes on."""
        bracket = self.bracket(rule)
        return bracket.passing if bracket.is_settled(self.known, rule) else None

    @property
    def step_s(self) -> float:
        """Seconds a step: median over the rounds, else over all runs of the search. NaN where nothing has trained."""
        timed = self.rounds or [outcome for seeds in self.outcomes.values() for outcome in seeds.values()]
        seconds = [outcome.train_s / outcome.steps for outcome in timed if math.isfinite(outcome.train_s)]
        return statistics.median(seconds) if seconds else math.nan

    def train_s(self, rule: Rule, grid: Grid) -> float:
        """Seconds of the smallest budget; NaN while it is not found."""
        place = self.found(rule)
        return math.nan if place is None else self.step_s * grid.steps(place)


class Arena:
    """Runs what is still needed, in order, until it is done or the time is up.

    Args:
        starts: place on the grid, by group, where an arm begins if no other arm tells.
        until: by `time.monotonic`; the last run may end later.
    """

    def __init__(
        self,
        arms: Sequence[TargetArm],
        runs: Runs,
        rule: Rule,
        grid: Grid,
        *,
        starts: Mapping[str, int],
        until: float = math.inf,
    ) -> None:
        self.rule, self.grid = rule, grid
        self.standings = [Standing(arm) for arm in arms]
        self._runs = runs
        self._starts = starts
        self._until = until

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self._until

    def search(self) -> bool:
        """The smallest budget of each arm. Returns whether there was time for all."""
        for standing in self.standings:
            start = self._start_of(standing)
            while (wanted := next_run(standing.known, self.rule, self.grid, start=start)) is not None:
                place, seed = wanted
                steps = self.grid.steps(place)
                if self.is_late and self._runs.known(standing.arm, steps, seed) is None:
                    return False
                outcome = self._runs.make(standing.arm, steps, seed)
                standing.outcomes.setdefault(place, {})[seed] = outcome
        return True

    def time(self, num_rounds: int) -> bool:
        """Rounds of one run of each arm in the running, there and back. Returns whether there was time for all."""
        timed = self.in_the_running()
        for number in range(num_rounds):
            for standing in timed if number % 2 == 0 else timed[::-1]:
                place = standing.found(self.rule)
                assert place is not None, "only arms that were found are timed"
                steps, seed = self.grid.steps(place), self.rule.num_seeds + number
                if self.is_late and self._runs.known(standing.arm, steps, seed) is None:
                    self._even_out(timed)
                    return False
                standing.rounds.append(self._runs.make(standing.arm, steps, seed))
        return True

    def in_the_running(self) -> list[Standing]:
        """The arms that were found, without plain ones that the search has shown to be much slower than the best."""
        found = [standing for standing in self.standings if standing.found(self.rule) is not None]
        plain = [standing.train_s(self.rule, self.grid) for standing in found if standing.arm.group == "plain"]
        limit = OUT_OF_THE_RUNNING * min(plain, default=math.inf)
        return [
            standing
            for standing in found
            if standing.arm.group != "plain" or standing.train_s(self.rule, self.grid) <= limit
        ]

    def best_plain(self) -> Standing | None:
        """The plain arm that is fastest to the target; None if none reached it."""
        plain = [each for each in self.in_the_running() if each.arm.group == "plain"]
        return min(plain, key=lambda standing: standing.train_s(self.rule, self.grid), default=None)

    def _start_of(self, standing: Standing) -> int:
        """Where arms of the group were found; a selecting arm whose kind is new begins where the other kind was."""
        places = [
            (other.arm.group == standing.arm.group, place)
            for other in self.standings
            if (place := other.found(self.rule)) is not None
            and (other.arm.group == "plain") == (standing.arm.group == "plain")
        ]
        return max(places)[1] if places else self._starts[standing.arm.group]

    def _even_out(self, timed: Sequence[Standing]) -> None:
        """Leaves only rounds that all arms were in."""
        num = min(len(standing.rounds) for standing in timed)
        for standing in timed:
            del standing.rounds[num:]
