"""The tables of a page: what stands in each cell, as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.experiment.report import words
from common.experiment.results import CLEAN_FALLBACK_FRACTION, ArmResult, Reached, Results

NOT_CLEAN = "not a clean comparison"


@dataclass(frozen=True)
class Cell:
    """small: what stands below it in smaller type; warns: whether it is a reason for caution."""

    text: str
    small: str = ""
    warns: bool = False


@dataclass(frozen=True)
class Table:
    """rows: (name of the arm, a cell for each column)."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, list[Cell]]]


def key_table(results: Results) -> Table:
    """What one wants to know first. Columns in which no arm has a figure are left out."""
    several = any(len(arm.done) > 1 for arm in results.arms)
    columns: list[tuple[str, Callable[[ArmResult], Cell]]] = [
        ("held-out accuracy", lambda arm: Cell(_percent(arm.accuracy), words.accuracy_range(arm.accuracy))),
        ("against plain, points", lambda arm: Cell(words.points(_ratio(arm, "accuracy_points")))),
        ("training time", lambda arm: Cell(words.seconds(words.mean(arm.train_s)))),
        ("time against plain", lambda arm: Cell(words.times(_ratio(arm, "train")))),
        ("compute against plain", lambda arm: Cell(words.times(_ratio(arm, "flops")))),
        ("scored per trained sample", _scored_per_trained),
        ("fallback steps", _fallbacks),
    ]
    caption = "Means over seeds, with the lowest and the highest accuracy below." if several else "One run an arm."
    return _table(caption, columns, results.arms)


def accounting_table(results: Results) -> Table:
    """Everything that was spent, as means over seeds."""

    def figure(name: str, show: Callable[[float | None], str]) -> Callable[[ArmResult], Cell]:
        return lambda arm: Cell(show(words.mean(getattr(arm, name))))

    columns: list[tuple[str, Callable[[ArmResult], Cell]]] = [
        ("seeds", lambda arm: Cell(_seeds(arm), warns=len(arm.done) < len(arm.runs))),
        ("cores or devices", lambda arm: Cell(f"{arm.cores} {arm.device}")),
        ("steps", figure("steps", words.count)),
        ("samples trained", figure("samples_trained", words.count)),
        ("samples scored", figure("samples_scored", words.count)),
        ("candidates per selected", figure("candidates_per_selected", words.decimal)),
        ("training compute", figure("flops_training", words.flops)),
        ("scoring compute", figure("flops_scoring", words.flops)),
        ("of that in low precision", figure("flops_scoring_low_precision", words.flops)),
        ("audit compute", figure("flops_audit", words.flops)),
        ("wall-clock", figure("wall_s", words.seconds)),
        ("training time", figure("train_s", words.seconds)),
        ("waited", lambda arm: Cell(words.percent(words.mean(arm.waited_fraction), 1))),
        ("fallback steps", _fallbacks),
        ("staleness, steps", lambda arm: Cell(words.decimal(words.mean(arm.staleness_mean)), _oldest(arm))),
        ("held-out accuracy", lambda arm: Cell(_percent(arm.accuracy), words.accuracy_range(arm.accuracy))),
    ]
    return _table("Means over seeds. Compute is counted from the model.", columns, results.arms)


def target_tables(results: Results) -> list[Table]:
    """For each target, what it took to reach it; "not reached" where it was not."""
    return [_target_table(results, place) for place in range(len(results.targets))]


def _target_table(results: Results, place: int) -> Table:
    arms = [arm for arm in results.arms if place < len(arm.reached)]

    def figure(show: Callable[[Reached], str]) -> Callable[[ArmResult], Cell]:
        return lambda arm: Cell(show(arm.reached[place]))

    columns = [
        ("seeds that reached it", figure(_num_reached)),
        ("steps", figure(lambda reached: words.count(words.mean(reached.step)))),
        ("training time", figure(lambda reached: words.seconds(words.mean(reached.train_s)))),
        ("time against plain", figure(lambda reached: words.times(reached.train_ratio))),
        ("samples trained", figure(lambda reached: words.count(words.mean(reached.samples_trained)))),
        ("samples scored", figure(lambda reached: words.count(words.mean(reached.samples_scored)))),
        ("compute", figure(lambda reached: words.flops(words.mean(reached.flops)))),
        ("compute against plain", figure(lambda reached: words.times(reached.flops_ratio))),
    ]
    return _table(f"To reach {words.percent(results.targets[place])} held-out accuracy", columns, arms)


def _table(
    caption: str, columns: Sequence[tuple[str, Callable[[ArmResult], Cell]]], arms: Sequence[ArmResult]
) -> Table:
    cells = {title: [cell(arm) for arm in arms] for title, cell in columns}
    kept = [title for title, column in cells.items() if any(cell.text != words.NOTHING for cell in column)]
    return Table(
        caption, tuple(kept), [(arm.name, [cells[title][row] for title in kept]) for row, arm in enumerate(arms)]
    )


def _percent(spread: object) -> str:
    return words.percent(getattr(spread, "mean", None))


def _ratio(arm: ArmResult, name: str) -> float | None:
    return None if arm.ratio_to_plain is None else getattr(arm.ratio_to_plain, name)


def _scored_per_trained(arm: ArmResult) -> Cell:
    trained, scored = words.mean(arm.samples_trained), words.mean(arm.samples_scored)
    return Cell(words.decimal(scored / trained if trained and scored is not None else None))


def _fallbacks(arm: ArmResult) -> Cell:
    if arm.mode != "stale":
        return Cell(words.NOTHING)
    shown = words.percent(words.mean(arm.fallback_fraction), 1)
    limit = f"{NOT_CLEAN}: above {words.percent(CLEAN_FALLBACK_FRACTION, 0)}"
    return Cell(shown) if arm.is_clean else Cell(shown, limit, warns=True)


def _seeds(arm: ArmResult) -> str:
    return str(len(arm.runs)) if len(arm.done) == len(arm.runs) else f"{len(arm.done)} of {len(arm.runs)}"


def _oldest(arm: ArmResult) -> str:
    return "" if arm.staleness_max is None else f"at most {arm.staleness_max.highest:.0f}"


def _num_reached(reached: Reached) -> str:
    return "not reached" if not reached.num_reached else f"{reached.num_reached} of {reached.num_runs}"
