"""`marginstream plan`: measure, advise, print."""

import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Sequence

from rich.console import Console

from common.config import describe_options
from common.config.plan import PlanOptions
from common.experiment.devices import find_layout
from common.experiment.plan.advice import advise
from common.experiment.plan.words import command_words, render, shell_lines


def main(options: PlanOptions, words: Sequence[str]) -> int:
    """The exit code, 0.

    Args:
        words: the flags, as typed.

    Raises:
        ConfigError: nothing in these options scores with the model, or they do not fit this machine.
    """
    if options.dry_run:
        sys.stdout.write(describe_options(options, "plan"))
        return 0
    # Imported here: they bring torch, which takes seconds.
    from common.experiment.plan.measuring import measure
    from common.experiment.plan.workbench import check_scored

    check_scored(options)
    measured = measure(options, find_layout(options), _say)
    advice = advise(options, measured)
    run = command_words(words, advice)
    if options.as_json:
        figures = {"over_fresh": advice.over_fresh, "break_even": advice.break_even}
        found = {"measured": dataclasses.asdict(measured), "advice": {**dataclasses.asdict(advice), **figures}}
        sys.stdout.write(json.dumps({"command": run, **found}) + "\n")
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    width = shutil.get_terminal_size().columns
    Console(width=width, highlight=False, soft_wrap=False).print(render(options, measured, advice))
    sys.stdout.write(f"\n{shell_lines(run, width)}\n")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"measuring: {text}…\n")
    sys.stderr.flush()
