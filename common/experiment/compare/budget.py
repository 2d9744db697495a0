"""Budgets in seconds or floating-point operations: how many steps of an arm they pay for, as a pilot run measures."""

from collections.abc import Sequence

from common.config.compare import CompareOptions
from common.errors import ConfigError
from common.experiment.compare.arms import Arm
from common.experiment.records import RunRecord
from common.experiment.results import Budget
from common.experiment.summarise import total


def budget_of(options: CompareOptions, steps: int) -> Budget:
    """What every run is given; `steps` of the shared options where nothing else is said."""
    if options.budget_s is not None:
        return Budget(kind="seconds", amount=options.budget_s)
    if options.budget_flops is not None:
        return Budget(kind="flops", amount=options.budget_flops)
    return Budget(kind="steps", amount=steps)


def check_budget(budget: Budget, arms: Sequence[Arm]) -> None:
    """Raise ConfigError for options of an arm that contradict a budget in seconds or flops.

    Steps of the shared options do not count: files of options have them for runs without such a budget.
    """
    if budget.kind == "steps":
        return
    flag = "--budget-s" if budget.kind == "seconds" else "--budget-flops"
    for arm in arms:
        if "steps" in arm.own:
            raise ConfigError(f"arm {arm.name}: {flag} decides how many steps an arm gets; leave out steps")
        if arm.options.schedule.name == "step" and arm.options.schedule.milestones:
            milestones = " ".join(map(str, arm.options.schedule.milestones))
            raise ConfigError(
                f"{flag} gives each arm its own number of steps, and --schedule.milestones {milestones} counts steps; "
                "use --schedule.milestone-shares, for example 0.5 0.75"
            )


def affordable_steps(budget: Budget, pilot: RunRecord) -> int:
    """The most steps like the pilot's that the budget pays for, at least one.

    Raises:
        ConfigError: the pilot did not record what a step takes.
    """
    per_step = seconds_per_step(pilot) if budget.kind == "seconds" else flops_per_step(pilot)
    if not per_step:
        raise ConfigError(f"the pilot in {pilot.folder} did not record {budget.kind}")
    return max(1, int(budget.amount / per_step))


def seconds_per_step(record: RunRecord) -> float | None:
    """Mean over the metrics rows from the first to the last; the first step, which warms up, is left out."""
    rows = [(row["step"], row["train_s"]) for row in record.metrics if row.get("train_s") is not None]
    if not rows or rows[-1][0] == rows[0][0]:
        return None
    (first, first_s), (last, last_s) = rows[0], rows[-1]
    return float((last_s - first_s) / (last - first))


def flops_per_step(record: RunRecord) -> float | None:
    """Mean over the run, training and scoring."""
    flops, steps = record.summary.get("flops"), record.summary.get("steps")
    if not flops or not steps or flops.get("training") is None:
        return None
    spent = total((flops["training"], *(flops.get("scoring") or {}).values()))
    return None if spent is None else spent / steps
