"""What the search found: the table for people, and what the JSON line holds."""

import math
import random
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from tests.bench.target.arena import Arena, Standing
from tests.bench.target.spread import finite, known_bounds, resampled_budgets, speedup_interval
from tests.bench.target.tuning import Tuned

SELECTING = ("fresh", "stale")


def result_of(arena: Arena, tuned: Mapping[str, Tuned], generator: random.Random) -> dict[str, Any]:
    """Figures by key; null where an arm has not been brought to the end."""
    rule, grid = arena.rule, arena.grid
    best = arena.best_plain()
    result: dict[str, Any] = {
        "bench": "time_to_target",
        "target": rule.target,
        "seeds": rule.num_seeds,
        "growth": grid.growth,
        "best_plain": None if best is None else best.arm.name,
        "tuned": {
            group: {"steps": each.steps, "lr": each.lr, "accuracy": dict(each.accuracies)}
            for group, each in tuned.items()
        },
    }
    for group in SELECTING:
        standing = next((each for each in arena.standings if each.arm.group == group), None)
        result |= {f"{group}_{name}": value for name, value in _speedups(arena, best, standing, generator).items()}
    return result | {"arms": {each.arm.name: _figures(arena, each) for each in arena.standings}}


def _speedups(
    arena: Arena, best: Standing | None, standing: Standing | None, generator: random.Random
) -> dict[str, Any]:
    """`speedup`, its 95 % interval, the ratio of steps; where an arm is not found yet, what is known already."""
    names = ("speedup", "speedup_interval", "step_speedup", "speedup_at_least", "speedup_at_most")
    figures: dict[str, Any] = dict.fromkeys(names)
    if standing is None:
        return figures
    rule, grid = arena.rule, arena.grid
    plain = [each for each in arena.standings if each.arm.group == "plain"]
    own, own_bounds = standing.step_s, _bounds(arena, standing)
    bounds = [(_bounds(arena, each), each.step_s) for each in plain if not math.isnan(each.step_s)]
    if bounds and not math.isnan(own):
        low, high = (min(limits[end] * step_s for limits, step_s in bounds) for end in (0, 1))
        at_most = high / (own_bounds[0] * own) if own_bounds[0] else math.inf
        figures |= finite({"speedup_at_least": low / (own_bounds[1] * own), "speedup_at_most": at_most})
    place = standing.found(rule)
    plain_place = None if best is None else best.found(rule)
    if best is None or place is None or plain_place is None:
        return figures
    steps = grid.steps(plain_place) / grid.steps(place)
    ratios = [
        (one.train_s / one.steps) / (other.train_s / other.steps)
        for one, other in zip(best.rounds, standing.rounds, strict=False)
        if math.isfinite(one.train_s) and math.isfinite(other.train_s)
    ] or [best.step_s / own]
    interval = speedup_interval(
        resampled_budgets(best.known, rule, grid, generator),
        resampled_budgets(standing.known, rule, grid, generator),
        ratios,
        generator,
    )
    return figures | {
        "speedup": round(steps * statistics.median(ratios), 3),
        "speedup_interval": [round(end, 3) if math.isfinite(end) else None for end in interval],
        "step_speedup": round(steps, 3),
    }


def _bounds(arena: Arena, standing: Standing) -> tuple[int, float]:
    bracket = standing.bracket(arena.rule)
    return known_bounds(bracket.failing, bracket.passing, arena.grid)


def _figures(arena: Arena, standing: Standing) -> dict[str, Any]:
    rule, grid = arena.rule, arena.grid
    place = standing.found(rule)
    at_budget = [] if place is None else list(standing.outcomes[place].values())
    trained = [each for each in (standing.rounds or at_budget) if each.summary]
    over, at_most = _bounds(arena, standing)
    figures: dict[str, Any] = {
        "steps": None if place is None else grid.steps(place),
        "steps_over": over,
        "steps_at_most": None if math.isinf(at_most) else at_most,
        **finite({"train_s": standing.train_s(rule, grid), "step_ms": 1e3 * standing.step_s}),
        "start_s": _median(each.start_s for each in trained),
        "accuracy": _mean(each.accuracy for each in at_budget),
        "accuracy_new_seeds": _mean(each.accuracy for each in standing.rounds),
        "rounds": len(standing.rounds),
        "tried": {
            grid.steps(tried): [outcome.accuracy for outcome in seeds.values()]
            for tried, seeds in sorted(standing.outcomes.items())
        },
    }
    for name in ("selected_fraction", "waited_fraction", "candidates_per_selected", "staleness_mean"):
        figures[name] = _mean(each.summary.get(name) for each in trained)
    return figures


def print_outcome(arena: Arena, tuned: Mapping[str, Tuned]) -> None:
    """Markdown tables."""
    for group, each in tuned.items():
        rates = ", ".join(f"{lr:g}: {accuracy:.2%}" for lr, accuracy in sorted(each.accuracies.items()))
        outside = "; a better one may lie outside of the grid" if each.is_at_an_end else ""
        print(f"learning rate of {group}, {each.steps} steps: {rates}; taken {each.lr:g}{outside}")
    print(f"\nsmallest budgets whose final held-out accuracy reaches {arena.rule.target:.2%}\n")
    print(
        "| arm | steps | accuracy | with new seeds | training time | a step | start-up | scored / selected | waited |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for standing in arena.standings:
        figures = _figures(arena, standing)
        steps = figures["steps"] or f"more than {figures['steps_over']}, at most {figures['steps_at_most'] or '?'}"
        cells = [
            standing.arm.name,
            str(steps),
            _show(figures["accuracy"], "{:.2%}"),
            _show(figures["accuracy_new_seeds"], "{:.2%}"),
            _show(figures["train_s"], "{:.1f} s"),
            _show(figures["step_ms"], "{:.1f} ms"),
            _show(figures["start_s"], "{:.1f} s"),
            _show(figures["candidates_per_selected"] or None, "{:.1f}"),
            _show(figures["waited_fraction"] if standing.arm.group == "stale" else None, "{:.1%}"),
        ]
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def _show(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.mean(known) if known else None


def _median(values: Iterable[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return statistics.median(known) if known else None
