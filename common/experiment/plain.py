"""What an arm is measured by: plain training on at most as many cores, and the ratios to it."""

import math
from collections.abc import Iterable

from common.experiment.results import ArmResult, Ratio, Spread

# Options, or groups of them, of how a model is trained, whatever selects the samples.
TRAINING = frozenset(
    {"model", "head", "init", "steps", "batch_size", "optimizer", "lr", "optim", "schedule", "augment", "label_noise"}
)


def plain_for(arm: ArmResult, arms: Iterable[ArmResult]) -> ArmResult | None:
    """The fastest plain arm on at most as many cores of the same kind; where no time was taken, the one on the most.

    One that trains as the arm does, with its steps, batch size, learning rate and the like, goes before all others.
    """
    fitting = [
        other
        for other in arms
        if other.mode == "uniform" and other.done and other.cores <= arm.cores and other.device == arm.device
    ]
    if arm.mode == "uniform" or not fitting:
        return None

    def slowness(other: ArmResult) -> tuple[bool, float, int]:
        seconds = other.train_s or other.wall_s
        return (not _trains_alike(arm, other), seconds.mean if seconds is not None else math.inf, -other.cores)

    return min(fitting, key=slowness)


def _trains_alike(arm: ArmResult, other: ArmResult) -> bool:
    keys = [key for key in {**arm.options, **other.options} if key.partition(".")[0] in TRAINING]
    return all(arm.options.get(key) == other.options.get(key) for key in keys)


def ratio_of(arm: ArmResult, plain: ArmResult) -> Ratio | None:
    """The arm over that plain arm; None without a finished run."""
    if not arm.done:
        return None
    points = None
    if arm.accuracy is not None and plain.accuracy is not None:
        points = 100 * (arm.accuracy.mean - plain.accuracy.mean)
    return Ratio(
        plain=plain.name,
        wall=_over(_mean(arm.wall_s), _mean(plain.wall_s)),
        train=_over(_mean(arm.train_s), _mean(plain.train_s)),
        flops=_over(_flops(arm), _flops(plain)),
        accuracy_points=points,
    )


def _flops(arm: ArmResult) -> float | None:
    """Training and scoring."""
    training, scoring = _mean(arm.flops_training), _mean(arm.flops_scoring)
    return None if training is None or scoring is None else training + scoring


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _over(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None
