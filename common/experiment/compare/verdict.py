"""What the figures of a comparison say, in sentences. A difference within the spread of the seeds is called that."""

from collections.abc import Iterable

from common.experiment.results import ArmResult, Results

EQUAL = 0.05  # ratios of time and compute this close to 1 count as equal: runs on one machine differ as much


def verdict_of(results: Results) -> list[str]:
    """Sentences about each arm against plain training, each stale one against fresh, and what is not to be trusted."""
    arms = {arm.name: arm for arm in results.arms}
    sentences: list[str] = []
    for arm in results.arms:
        sentences += _failures(arm)
        if not arm.done:
            continue
        sentences += _against_plain(arm, arms)
        fresh = fresh_for(arm, results.arms)
        if fresh is not None:
            sentences.append(_against_fresh(arm, fresh))
        sentences += _targets(arm)
        if not arm.is_clean and arm.fallback_fraction is not None:
            sentences.append(
                f"{arm.name} is not a clean comparison: {arm.fallback_fraction.mean:.0%} of its selecting steps fell "
                "back for want of scored candidates."
            )
    if results.arms and not any(arm.mode == "uniform" for arm in results.arms):
        sentences.append("Without a plain arm (uniform) nothing can be said about what selection gains.")
    return sentences


def fresh_for(arm: ArmResult, arms: Iterable[ArmResult]) -> ArmResult | None:
    """For a stale arm the fresh one with the same method, on at most as many cores, the fastest of those."""
    fitting = [
        other
        for other in arms
        if other.mode == "fresh"
        and other.done
        and other.method == arm.method
        and other.cores <= arm.cores
        and other.device == arm.device
    ]
    if arm.mode != "stale" or not fitting:
        return None
    return min(fitting, key=_slowness)


def spread_of(one: ArmResult, other: ArmResult) -> float | None:
    """The larger standard deviation of the two arms' accuracies, in percentage points; None with a single seed."""
    if one.accuracy is None or other.accuracy is None or one.accuracy.std is None or other.accuracy.std is None:
        return None
    return 100 * max(one.accuracy.std, other.accuracy.std)


def _against_plain(arm: ArmResult, arms: dict[str, ArmResult]) -> list[str]:
    ratio = arm.ratio_to_plain
    if ratio is None:
        return []
    plain = arms[ratio.plain]
    costs = _costs(ratio.train, ratio.flops)
    difference = points(ratio.accuracy_points, spread_of(arm, plain))
    taken = f"takes {' and '.join(costs)} of {plain.name} and " if costs else ""
    sentence = f"{arm.name} {taken}ends {difference}"
    if gains_nothing(arm, plain):
        sentence += ": it gains nothing here"
    return [f"{sentence}."]


def gains_nothing(arm: ArmResult, plain: ArmResult) -> bool:
    """No higher accuracy beyond the seeds' spread, no less time, and no target reached earlier.

    Compute stands in for time where no seconds were taken. With a single seed any difference may be one.
    """
    ratio = arm.ratio_to_plain
    if ratio is None:
        return False
    spread = spread_of(arm, plain)
    is_better = ratio.accuracy_points is not None and ratio.accuracy_points > (spread or 0)
    is_worse = ratio.accuracy_points is not None and ratio.accuracy_points < -(spread or 0)
    cost = ratio.train if ratio.train is not None else ratio.flops
    is_cheaper = cost is not None and cost < 1 - EQUAL and not is_worse
    earlier = [each.train_ratio if each.train_ratio is not None else each.flops_ratio for each in arm.reached]
    is_earlier = any(value is not None and value < 1 - EQUAL for value in earlier)
    reaches_more = any(
        each.num_reached > other.num_reached for each, other in zip(arm.reached, plain.reached, strict=False)
    )
    return not (is_better or is_cheaper or is_earlier or reaches_more)


def _against_fresh(arm: ArmResult, fresh: ArmResult) -> str:
    difference = None
    if arm.accuracy is not None and fresh.accuracy is not None:
        difference = 100 * (arm.accuracy.mean - fresh.accuracy.mean)
    parts = []
    if arm.train_s is not None and fresh.train_s is not None and fresh.train_s.mean > 0:
        parts.append(f"takes {times(arm.train_s.mean / fresh.train_s.mean)} the training time and")
    parts.append(f"ends {points(difference, spread_of(arm, fresh))}")
    return f"Against fresh selection ({fresh.name}), {arm.name} {' '.join(parts)}."


def _targets(arm: ArmResult) -> list[str]:
    """What the arm missed, and what the targets that all its runs reached took it against plain training."""
    missed = [
        f"{arm.name}: {100 * each.target:.4g}% not reached by {_missing(each.num_reached, each.num_runs)}."
        for each in arm.reached
        if each.num_reached < each.num_runs
    ]
    needs = [
        f"for {100 * each.target:.4g}% {' and '.join(ratios)}"
        for each in arm.reached
        if (ratios := _costs(each.train_ratio, each.flops_ratio))
    ]
    if needs and arm.ratio_to_plain is not None:
        missed.append(f"{arm.name} needs, against {arm.ratio_to_plain.plain}, {'; '.join(needs)}.")
    return missed


def _costs(train: float | None, flops: float | None) -> list[str]:
    pairs = ((train, "the training time"), (flops, "the compute"))
    return [f"{times(value)} {what}" for value, what in pairs if value is not None]


def _missing(num_reached: int, num_runs: int) -> str:
    if num_reached == 0:
        return "any of its runs" if num_runs > 1 else "its run"
    return f"{num_runs - num_reached} of its {num_runs} runs"


def _failures(arm: ArmResult) -> list[str]:
    failed = [run for run in arm.runs if run.status == "failed"]
    missing = [run for run in arm.runs if run.status == "missing"]
    sentences = []
    if failed:
        sentences.append(f"{arm.name}: {len(failed)} of {len(arm.runs)} runs failed: {failed[0].error}")
    if missing:
        sentences.append(f"{arm.name}: {len(missing)} of {len(arm.runs)} runs have not run yet.")
    return sentences


def times(ratio: float) -> str:
    """`1.90 times`."""
    return f"{ratio:.2f} times" if ratio < 10 else f"{ratio:.3g} times"


def points(difference: float | None, spread: float | None) -> str:
    """`0.31 points higher in held-out accuracy, within the seeds' spread of 0.40`."""
    if difference is None:
        return "with an unknown accuracy"
    if spread is None:
        beside = " (a single seed: nothing is known of the spread)"
    elif abs(difference) <= spread:
        beside = f", within the seeds' spread of {spread:.2f}"
    else:
        beside = f", beyond the seeds' spread of {spread:.2f}"
    direction = "higher" if difference > 0 else "lower"
    if f"{difference:+.2f}" in ("+0.00", "-0.00"):
        return f"with the same held-out accuracy{beside}"
    return f"{abs(difference):.2f} points {direction} in held-out accuracy{beside}"


def _slowness(arm: ArmResult) -> tuple[float, int]:
    return (float("inf") if arm.train_s is None else arm.train_s.mean, -arm.cores)
