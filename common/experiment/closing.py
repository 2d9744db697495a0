"""What `marginstream run` says when its processes have ended, and what it adds to the trainer's summary."""

import contextlib
import json
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import TrainingDiverged
from common.experiment.children import Child
from common.experiment.display import short
from common.experiment.members import BAD_INPUT, REFUSED, Member, restarts_in_words
from common.experiment.ranks import Ranks
from common.experiment.supervise import Outcome, go_silent
from common.run_folder import OPTIONS, SUMMARY, UNWRITTEN, has_ended, to_json
from common.whole_files import replace_file

TRACE = "trace-"  # begins the names of the files of --profile
ENDS_ALIKE = (BAD_INPUT, REFUSED, TrainingDiverged.exit_code)  # also if the run went on from its last checkpoint


def report(
    outcome: Outcome,
    folder: Path,
    ranks: Ranks,
    scorers: Sequence[Member],
    *,
    is_kept: bool,
    is_resumed: bool,
    before: str | None,
) -> None:
    """The closing words: how the run went, and the error of the process that ended it.

    Args:
        before: the closing words of an earlier life of the run, which are not said again.
    """
    words = closing_words(folder)
    words = None if words == before else words
    is_short = UNWRITTEN in _summary(folder)  # came to its end, and did not leave all that it should
    stopped = outcome.code > 128  # a trainer that was stopped in order, by whomever, has left its words
    is_failure = outcome.failed is not None and (is_short or not (stopped and words))
    if words is not None and (is_short or not is_failure):
        say(words)
    if is_failure:
        assert outcome.failed is not None, "checked"
        sys.stderr.write(f"{_error(outcome.failed, ranks, is_kept=is_kept)}\n")
        sys.stderr.flush()
    elif stopped and words is None:
        say(f"Ended by {signal.Signals(outcome.code - 128).name} before the trainer had saved.")
    if (restarts := restarts_in_words([ranks, *scorers])) is not None:
        say(restarts)
    for scorer in outcome.lost:
        say(f"{scorer.now.fate()} before the end; the run went on without it, see {short(scorer.now.log)}")
    if traces := sorted(folder.glob(f"{TRACE}*.json")):
        names = ", ".join(path.name for path in traces)
        say(f"Chrome traces, for ui.perfetto.dev or chrome://tracing, in the run folder: {names}")
    may_go_on = is_short or outcome.code not in (0, *ENDS_ALIKE)
    if may_go_on and (outcome.has_trained or is_resumed) and not has_ended(folder):
        say(f"Go on with: marginstream run --config {short(folder / OPTIONS)} --resume")
    if is_kept:
        say(f"Run folder: {short(folder)}")


def _error(failed: Child, ranks: Ranks, *, is_kept: bool) -> str:
    """What a process said about its failure, and which of several ranks it is."""
    error = failed.error()
    if len(ranks.members) == 1 or failed not in ranks.children or failed.fate() in error:
        return error
    return f"{error}\n{failed.fate()}{f', see {short(failed.log)}' if is_kept else ''}"


def note_processes(folder: Path, members: Sequence[Member], outcome: Outcome) -> None:
    """Adds what became of every process, and the signal that came, to the trainer's summary, where that left one."""
    summary = _summary(folder)
    if not summary:
        return
    summary["processes"] = [member.record() for member in members]
    if "stopped_by" in summary and outcome.code > 128:  # the trainer is always told by SIGTERM
        summary["stopped_by"] = signal.Signals(outcome.code - 128).name
    try:
        replace_file(folder / SUMMARY, to_json(summary, indent=2) + "\n")
    except OSError as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"warning: {SUMMARY} does not say what became of the processes: {error.strerror}\n")


def closing_words(folder: Path) -> str | None:
    """The trainer's summary in words; None if there is none."""
    words = _summary(folder).get("words")
    return str(words) if words else None


def _summary(folder: Path) -> dict[str, Any]:
    """Empty where the trainer left none."""
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def say(text: str) -> None:
    """In lines that fit the terminal; for nobody, once whoever read them has gone."""
    try:
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            text = "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in text.splitlines())
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        go_silent()
