"""The arms of the search for a time to target: plain training in three ways, fresh and stale selection."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.config.loading import merge_tables
from common.experiment.compare.arms import Arm, read_arm

LEAN = {"eval_every": 0, "tensorboard": False, "gallery": False, "ledger": False, "margins": False, "audit_fraction": 0}
TWO_PROCESSES = "plain, 2 processes"
ARMS = ("plain-all", "stale", "fresh", "plain-1", "plain-2p")


@dataclass(frozen=True)
class TargetArm:
    """One arm.

    Attributes:
        name: in tables.
        group: plain, fresh or stale; arms of one group learn alike but for rounding.
        arm: options of its runs; steps and seed are the search's.
    """

    name: str
    group: str
    arm: Arm


def make_arms(
    given: Mapping[str, Any], options: Mapping[str, str], names: Sequence[str], *, cores: int
) -> list[TargetArm]:
    """The arms, those first whose budgets tell where the others may start.

    Args:
        given: options that all runs share, as a nested table. What records a run on the way is off unless given.
        options: KEY=VALUE,... by group, as `marginstream compare --arms` takes them.
        names: out of ARMS, those that are wanted.
        cores: that every arm may use.

    Raises:
        ConfigError: unknown options.
    """
    shared = merge_tables({"log": LEAN}, given)
    makers = {
        "plain-all": lambda: _arm(f"plain, {cores} threads", "plain", f"threads={cores}", shared, options),
        "stale": lambda: _arm("stale", "stale", "", shared, options),
        "fresh": lambda: _arm("fresh", "fresh", f"threads={cores}", shared, options),
        "plain-1": lambda: _arm("plain, 1 thread", "plain", "threads=1", shared, options),
        "plain-2p": lambda: _in_two(_arm(TWO_PROCESSES, "plain", "threads=1", shared, options)),
    }
    left_out = ("plain-all", "plain-2p") if cores == 1 else ()  # all threads are one
    return [makers[name]() for name in ARMS if name in names and name not in left_out]


def _in_two(arm: TargetArm) -> TargetArm:
    """With a name of its own: its options are those of the arm with one thread."""
    return replace(arm, arm=replace(arm.arm, name=f"{arm.arm.name} in 2 processes"))


def usable_cores() -> int:
    """Cores that this process, and what it starts, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _arm(name: str, group: str, own: str, shared: Mapping[str, Any], options: Mapping[str, str]) -> TargetArm:
    mode = "uniform" if group == "plain" else group
    given = options.get(group, "")
    if "threads=" in given and group != "plain":
        own = ""
    words = ",".join(word for word in (own, given) if word)
    return TargetArm(name, group, read_arm(f"{mode}:{words}" if words else mode, shared))
