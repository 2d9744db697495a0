"""Plain training on as many cores as a stale run computes on: arms that are added where they are missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.experiment.compare.arms import Arm, read_arm
from common.experiment.summarise import cores_of


def with_equal_cores(
    arms: Sequence[Arm], given: Mapping[str, Any], *, num_gpus: int, cpu_count: int, device: str | None = None
) -> tuple[list[Arm], list[str]]:
    """The arms, plain ones added behind those that are listed, and notes for people about them.

    A stale run on the CPU computes in the trainer and in its scorers. Plain training, which every arm is measured by,
    gets as many threads, where it is listed and does not compute on as many cores yet.

    Args:
        device: that the runs are put on; None leaves it to their options.
    """
    place = {} if device is None else {"device": device, "scorer_device": device}

    def cores(arm: Arm) -> int | None:
        number, kind = cores_of(arm.options.model_copy(update=place), num_gpus=num_gpus, cpu_count=cpu_count)
        return number if kind == "cpu" else None

    wanted = {number: arm.name for arm in reversed(arms) if arm.options.mode == "stale" and (number := cores(arm))}
    extended, notes = list(arms), []
    for number, name in sorted(wanted.items()):
        plain = [arm for arm in extended if arm.options.mode == "uniform"]
        if plain and number not in [cores(arm) for arm in plain]:
            arm = read_arm(f"uniform:threads={number}", given)
            extended.insert(extended.index(plain[-1]) + 1, arm)
            notes.append(
                f"{arm.name} was added because {name} computes on {number} cores, trainer and scorers together."
            )
    return extended, notes
