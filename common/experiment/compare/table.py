"""The results as tables for a terminal: accuracy and cost, time and staleness, and what it took to reach targets."""

import textwrap
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.experiment.display import duration
from common.experiment.results import CLEAN_FALLBACK_FRACTION, ArmResult, Results, Spread

WIDTH = 100
UNKNOWN = "–"
NOT_REACHED = "not reached"
UNCLEAN = "!"
_PREFIXES = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def write_tables(results: Results, stream: TextIO) -> None:
    """Writes tables, notes and verdict, at most `WIDTH` columns wide."""
    console = Console(file=stream, width=min(WIDTH, Console(file=stream).width) if stream.isatty() else WIDTH)
    for table in tables(results):
        console.print()
        console.print(table)
    if any(not arm.is_clean for arm in results.arms):
        console.print(f"{UNCLEAN} more than {CLEAN_FALLBACK_FRACTION:.0%} fallbacks: not a clean comparison")
    for heading, sentences in (("Notes", results.notes), ("Verdict", results.verdict)):
        if sentences:
            console.print(Text(f"\n{heading}", "bold"))
            for sentence in sentences:
                wrapped = textwrap.wrap(sentence, console.width - 2, break_on_hyphens=False, break_long_words=False)
                console.print(Text("\n  ".join(["- " + wrapped[0], *wrapped[1:]])), soft_wrap=True)
    console.print()


def tables(results: Results) -> list[Table]:
    """Rows are arms, figures are means over the seeds."""
    found = [_costs(results), _times(results)]
    if results.targets:
        found.append(_targets(results))
    return found


def _costs(results: Results) -> Table:
    flops = [spread for arm in results.arms for spread in (arm.flops_training, arm.flops_scoring)]
    unit, scale = unit_of(flops)
    low = any(arm.flops_scoring_low_precision and arm.flops_scoring_low_precision.mean for arm in results.arms)
    table = _table(
        "accuracy and cost, mean over the seeds",
        ["arm", "held-out\naccuracy", "lowest–\nhighest", "steps", "samples\ntrained", "samples\nscored"],
        [f"training\n{unit}FLOP", f"scoring\n{unit}FLOP", *(["below\nfloat32"] if low else [])],
    )
    for arm in results.arms:
        table.add_row(
            _name(arm),
            accuracy(arm.accuracy),
            between(arm.accuracy),
            count(arm.steps),
            count(arm.samples_trained),
            count(arm.samples_scored),
            scaled(arm.flops_training, scale),
            scaled(arm.flops_scoring, scale),
            *([scaled(arm.flops_scoring_low_precision, scale)] if low else []),
        )
    return table


def _times(results: Results) -> Table:
    table = _table(
        "time, staleness and the ratio to plain training",
        ["arm", "cores", "training\ntime", "wall-\nclock", "waited", "fall-\nbacks", "stale-\nness"],
        ["×\ntime", "× com-\npute", "points", "against"],
    )
    for arm in results.arms:
        ratio = arm.ratio_to_plain
        table.add_row(
            arm.name,
            str(arm.cores),
            seconds(arm.train_s),
            seconds(arm.wall_s),
            percent(arm.waited_fraction),
            percent(arm.fallback_fraction) + ("" if arm.is_clean else f" {UNCLEAN}"),
            UNKNOWN if arm.staleness_mean is None else f"{arm.staleness_mean.mean:.1f}",
            _times_of(ratio.train if ratio else None),
            _times_of(ratio.flops if ratio else None),
            UNKNOWN if ratio is None or ratio.accuracy_points is None else f"{ratio.accuracy_points:+.2f}",
            ratio.plain if ratio else UNKNOWN,
        )
    return table


def _targets(results: Results) -> Table:
    unit, scale = unit_of([reached.flops for arm in results.arms for reached in arm.reached])
    table = _table(
        "to reach a held-out accuracy, mean over the runs that did",
        ["target", "arm", "runs", "steps", "training\ntime", "samples\ntrained", "samples\nscored"],
        [f"{unit}FLOP", "×\ntime", "× com-\npute"],
        left=2,
    )
    for index, target in enumerate(results.targets):
        for arm in results.arms:
            reached = arm.reached[index]
            head = [f"{100 * target:.4g}%", arm.name, f"{reached.num_reached}/{reached.num_runs}"]
            if reached.num_reached == 0:
                table.add_row(*head, NOT_REACHED if reached.num_runs else UNKNOWN, *([UNKNOWN] * 6))
                continue
            table.add_row(
                *head,
                count(reached.step),
                seconds(reached.train_s),
                count(reached.samples_trained),
                count(reached.samples_scored),
                scaled(reached.flops, scale),
                _times_of(reached.train_ratio),
                _times_of(reached.flops_ratio),
            )
        table.add_section()
    return table


def _table(title: str, columns: Sequence[str], more: Sequence[str], *, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate([*columns, *more]):
        is_name = index < left
        table.add_column(column, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
    return table


def _name(arm: ArmResult) -> str:
    failed = sum(run.status == "failed" for run in arm.runs)
    return f"{arm.name} ({failed} failed)" if failed else arm.name


def unit_of(spreads: Sequence[Spread | None]) -> tuple[str, float]:
    """Prefix and factor in which the largest of these has a few digits: `("T", 1e12)`."""
    largest = max((spread.mean for spread in spreads if spread is not None), default=0.0)
    return next(((prefix, factor) for prefix, factor in _PREFIXES if largest >= factor), ("", 1.0))


def accuracy(spread: Spread | None) -> str:
    """`97.50% ± 0.31`."""
    if spread is None:
        return UNKNOWN
    return f"{spread.mean:.2%}" + (f" ± {100 * spread.std:.2f}" if spread.std is not None else "")


def between(spread: Spread | None) -> str:
    """`97.2–97.8`, in per cent; nothing for a single seed."""
    if spread is None or spread.num < 2:
        return UNKNOWN
    return f"{100 * spread.lowest:.2f}–{100 * spread.highest:.2f}"


def count(spread: Spread | None) -> str:
    """`950`, `38.4 k`, `1.23 M`."""
    if spread is None:
        return UNKNOWN
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if spread.mean >= 10 * factor or (prefix != "k" and spread.mean >= factor):
            return f"{spread.mean / factor:.3g} {prefix}" if spread.mean < 1e3 * factor else f"{spread.mean:.3g}"
    return f"{spread.mean:.0f}"


def scaled(spread: Spread | None, scale: float) -> str:
    """Three digits in the unit of the column."""
    if spread is None:
        return UNKNOWN
    value = spread.mean / scale
    return "0" if value == 0 else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def seconds(spread: Spread | None) -> str:
    """`9.3 s`, `12:34`."""
    if spread is None:
        return UNKNOWN
    return f"{spread.mean:.1f} s" if spread.mean < 100 else duration(spread.mean)


def percent(spread: Spread | None) -> str:
    """`1.2%`."""
    return UNKNOWN if spread is None else f"{spread.mean:.1%}"


def _times_of(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"
