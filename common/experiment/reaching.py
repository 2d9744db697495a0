"""What it took to reach a held-out accuracy: the first evaluation that showed it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.experiment.results import Reached, Spread


@dataclass(frozen=True)
class Point:
    """What a run had used up at an evaluation; None where its metrics do not say."""

    step: int
    train_s: float | None
    samples_trained: int | None
    samples_scored: int | None
    flops: float | None


def first_reaching(metrics: Sequence[Mapping[str, Any]], target: float) -> Point | None:
    """The first evaluation with at least this held-out accuracy; None if there is none."""
    for row in metrics:
        accuracy = row.get("accuracy/held_out")
        if accuracy is not None and accuracy >= target:
            training, scoring = row.get("flops_training"), row.get("flops_scoring")
            return Point(
                step=row["step"],
                train_s=row.get("train_s"),
                samples_trained=row.get("samples_trained"),
                samples_scored=row.get("samples_scored"),
                flops=None if training is None or scoring is None else training + scoring,
            )
    return None


def reached_by(
    target: float, points: Sequence[Point | None], plain: Sequence[Point | None] | None, *, timed: bool
) -> Reached:
    """The runs of an arm against a target.

    Args:
        points: one for each finished run; None for one that did not reach it.
        plain: the same of the plain arm; None if there is none.
        timed: whether seconds mean something.
    """
    found = [point for point in points if point is not None]
    seconds = Spread.of([point.train_s for point in found]) if timed else None
    flops = Spread.of([point.flops for point in found])
    train_ratio = flops_ratio = None
    if plain and found and len(found) == len(points) and None not in plain:
        others = [point for point in plain if point is not None]
        train_ratio = _ratio(seconds, Spread.of([point.train_s for point in others]))
        flops_ratio = _ratio(flops, Spread.of([point.flops for point in others]))
    return Reached(
        target=target,
        num_runs=len(points),
        num_reached=len(found),
        step=Spread.of([point.step for point in found]),
        train_s=seconds,
        samples_trained=Spread.of([point.samples_trained for point in found]),
        samples_scored=Spread.of([point.samples_scored for point in found]),
        flops=flops,
        train_ratio=train_ratio,
        flops_ratio=flops_ratio,
    )


def _ratio(spread: Spread | None, base: Spread | None) -> float | None:
    return spread.mean / base.mean if spread is not None and base is not None and base.mean > 0 else None
