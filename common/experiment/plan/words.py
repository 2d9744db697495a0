"""The plan as people read it: what was measured and how, what follows from it, and the command to run."""

import shlex
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.config import RunOptions
from common.experiment.plan.advice import Advice
from common.experiment.plan.measured import Measured, Scoring

PLAN_FLAGS = {"--json": 0, "--as-json": 0, "--no-as-json": 0, "--measure-s": 1}
INDENT = "    "
BUSY_FRACTION = 0.4  # of the cores, by the load average of a minute


def render(options: RunOptions, measured: Measured, advice: Advice) -> RenderableType:
    """All but the command, which must not be wrapped."""
    chosen = next(
        (one for one in measured.scoring if (one.precision, one.chunk) == _together_with(measured, advice)),
        measured.scoring[0],
    )
    return Group(
        Text(_head(options, measured), "bold"),
        Text("\nMeasured, medians:"),
        Padding(_times(measured), (0, 0, 0, 2)),
        Text(
            "\nScoring one candidate, alone on the scorer's device (same selected: of the hardest tenth in float32, at "
            "initial weights, whose margins are closer together than trained ones):"
        ),
        Padding(_scoring(measured, chosen), (0, 0, 0, 2)),
        Text(f"\n{inequality_words(measured, advice, chosen)}"),
        Text(f"\n{expectation_words(options, advice)}"),
        *([Text(f"\n{busy_words(measured)}", "yellow")] if is_busy(measured) else []),
    )


def _head(options: RunOptions, measured: Measured) -> str:
    cores = f"{measured.cores} core{'s' if measured.cores > 1 else ''}"
    where = f"trainer on {measured.trainer_device}, scorers on {measured.scorer_device}, {cores}"
    return f"{options.model} on {options.data}, {options.method}, {options.batch_size} a step\n{where}"


def _times(measured: Measured) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for threads, seconds in sorted(measured.step_s.items(), reverse=True):
        on = f"{threads} thread{'s' if threads > 1 else ''}, " if measured.trainer_device == "cpu" else ""
        table.add_row("training step", duration(seconds), f"{on}alone")
    together = measured.together
    if together is not None:
        scorers = f"{together.scorers} scorer{'s' if together.scorers > 1 else ''}"
        beside = f"beside {scorers} at work, {together.slowdown:.2f} times that without, taken in turns"
        table.add_row("training step", duration(together.step_s), beside)
        rate = f"{together.candidates_per_s:,.0f}/s"
        beside = f"by {scorers} in {together.precision}, chunks of {together.chunk}, beside that step"
        table.add_row("candidates scored", rate, beside)
    table.add_row("forward pass and scores", duration(measured.forward_s), "the trainer's, float32, a candidate")
    table.add_row("read and augment", duration(measured.read_s), "a candidate")
    table.add_row("stall of a push", duration(measured.push_s), "the trainer's copy of its weights")
    kilobytes = measured.weights_bytes / 1e3
    size = f"{kilobytes / 1e3:.3g} MB" if kilobytes >= 1e3 else f"{kilobytes:.3g} kB"
    table.add_row("weights on the wire", duration(measured.weights_s), f"{size}, checked on both sides")
    table.add_row("scores on the wire", duration(measured.message_s), "a chunk, from array to array")
    return table


def _scoring(measured: Measured, chosen: Scoring) -> Table:
    exact = {one.chunk: one.sample_s for one in measured.scoring if one.precision == "float32"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("precision", "chunk", "takes", "speed", "same selected", "new weights"):
        table.add_column(name, justify="left" if name == "precision" else "right", no_wrap=True)
    for one in measured.scoring:
        speed = f"{exact[one.chunk] / one.sample_s:.1f}x" if one.chunk in exact else ""
        cells = [one.precision, str(one.chunk), duration(one.sample_s), speed, f"{one.overlap:.0%}"]
        style = "bold" if one is chosen else "" if one.is_good else "dim"
        table.add_row(*cells, duration(one.load_s), style=style)
    return table


def inequality_words(measured: Measured, advice: Advice, scoring: Scoring) -> str:
    """Where the candidates for each selected one come from."""
    answer_s = measured.message_s / scoring.chunk
    return (
        f"A scorer in {scoring.precision} spends {duration(measured.scored_s(scoring))} on a candidate "
        f"(reads {duration(measured.read_s)}, scores {duration(scoring.sample_s)}, answers {duration(answer_s)}), the "
        f"trainer's pass takes {duration(measured.forward_s)}: q = {advice.q:.1f}. Without waiting N/k <= 3 S q = "
        f"3 x {advice.scorers} x {advice.q:.1f} = {advice.inequality:.1f} candidates for each selected one, where a "
        "step costs three passes of its samples; " + _sustained(measured, advice)
    )


def _sustained(measured: Measured, advice: Advice) -> str:
    how = "measured at the same time" if measured.together is not None else "by the step and the rate measured alone"
    return f"{how}, the scorers supply {advice.sustained:.1f}."


def expectation_words(options: RunOptions, advice: Advice) -> str:
    """What to expect of the command, and when it is worth it."""
    ratio = advice.candidates / options.batch_size
    if advice.waited_fraction > 0.005:
        wait = f"waits {advice.waited_fraction:.0%} of the time with --fallback wait, else as many steps fall back"
    else:
        wait = "does not wait"
    words = (
        f"Expected with {ratio:.3g} candidates for each selected one: the trainer {wait}; a step takes "
        f"{duration(advice.stale_s)}, {advice.over_fresh:.1f} times as fast as scoring them in the trainer in "
        f"{advice.fresh_precision} ({duration(advice.fresh_s)}). Plain training takes {duration(advice.plain_s)} a "
        "step at its best number of threads: stale training is the faster one if it needs less than "
        f"{advice.break_even:.0%} of its steps."
    )
    if advice.over_fresh < 1:
        how = f"--mode fresh --precision {advice.fresh_precision}"
        words += f" Scoring in the trainer is the faster way here: compare with {how}."
    if not advice.is_worthwhile:
        words += (
            " That leaves scorers too slow for a choice worth its name: add some, on other cores, devices or hosts, or "
            "compare with --mode fresh and --mode uniform before relying on it."
        )
    return words


def is_busy(measured: Measured) -> bool:
    """Whether others were computing on this machine before it was measured."""
    return measured.load > BUSY_FRACTION * measured.cores


def busy_words(measured: Measured) -> str:
    return (
        f"Others are using this machine (load {measured.load:.1f} on {measured.cores} cores): measure again when it is "
        "quiet, or take the figures with a grain of salt."
    )


def command_words(words: Sequence[str], advice: Advice) -> list[str]:
    """`marginstream run` with what was typed and what is advised.

    Args:
        words: flags of the plan, as typed.
    """
    kept = without(words, PLAN_FLAGS | {f"--{name}": 1 for name in map(dashed, advice.options)})
    advised = [word for name, value in advice.options.items() for word in (f"--{dashed(name)}", value)]
    return ["marginstream", "run", *kept, *advised]


def without(words: Sequence[str], flags: dict[str, int]) -> list[str]:
    """The words without some flags and as many values of theirs; `--flag=value` and underscores are seen through."""
    kept: list[str] = []
    skip = 0
    for word in words:
        name, has_value, _ = word.partition("=")
        name = dashed(name) if name.startswith("--") else name
        if skip:
            skip -= 1
        elif name in flags:
            skip = 0 if has_value else flags[name]
        else:
            kept.append(word)
    return kept


def dashed(name: str) -> str:
    return name.replace("_", "-")


def shell_lines(words: Sequence[str], width: int) -> str:
    """A command to paste, broken between flags where it is longer than `width`."""
    groups: list[str] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append(shlex.quote(word))
        else:
            groups[-1] += f" {shlex.quote(word)}"
    lines = [groups[0]]
    for group in groups[1:]:
        if len(lines[-1]) + len(group) + 3 > width:
            lines.append(INDENT + group)
        else:
            lines[-1] += f" {group}"
    return " \\\n".join(lines)


def duration(seconds: float) -> str:
    """`12.3 us`, `4.56 ms`, `1.23 s`."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError("unreachable")


def _together_with(measured: Measured, advice: Advice) -> tuple[str, int]:
    if measured.together is not None:
        return measured.together.precision, measured.together.chunk
    return advice.precision, advice.chunk
