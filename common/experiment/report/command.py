"""`marginstream report`: gather runs, sum them up, draw the page."""

import shlex
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from common.config.report import ReportOptions
from common.errors import ConfigError
from common.experiment.compare.verdict import verdict_of
from common.experiment.display import short
from common.experiment.records import RunRecord
from common.experiment.report.fields import describe_fields
from common.experiment.report.gather import find_runs, grouped, kept_comparison, notes_of, title_of
from common.experiment.report.write import write_report
from common.experiment.results import RESULTS, Results, write_results
from common.experiment.summarise import results_of


def main(options: ReportOptions, words: Sequence[str]) -> int:
    """The exit code, 0.

    Args:
        words: the flags, as typed.

    Raises:
        ConfigError: a folder that holds no finished run, or a damaged one.
    """
    if options.fields:
        sys.stdout.write(describe_fields(Results))
        return 0
    if not options.runs:
        raise ConfigError(
            "marginstream report needs a run folder, or several: marginstream report runs/digits-mms-stale-TIME"
        )
    folder = _folder(options)
    results, records = study_of(options, folder, words)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_results(folder / RESULTS, results)
        page = write_report(results, folder, records)
    except OSError as error:
        raise ConfigError(f"cannot write the report to {folder}: {error}; name another folder with --out") from error
    sys.stdout.write("".join(f"{sentence}\n" for sentence in results.verdict))
    sys.stdout.write(f"Report: {short(page)}\n")
    if options.open and not webbrowser.open(page.as_uri()):
        sys.stdout.write("No browser was found to open it with.\n")
    return 0


def study_of(options: ReportOptions, folder: Path, words: Sequence[str]) -> tuple[Results, dict[str, list[RunRecord]]]:
    """The results, and the runs by arm. A comparison's own folder keeps its arms, names and targets.

    Raises:
        ConfigError: see `main`.
    """
    if len(options.runs) == 1:
        kept = kept_comparison(options.runs[0], folder, options.targets)
        if kept is not None:
            return kept
    found = find_runs(options.runs)
    arms = grouped(found.records)
    results = results_of(
        arms.items(),
        title=title_of(arms),
        command=shlex.join(["marginstream", "report", *words]),
        root=folder,
        targets=options.targets,
        notes=notes_of(arms, found.unfinished),
    )
    return results.model_copy(update={"verdict": verdict_of(results)}), arms


def _folder(options: ReportOptions) -> Path:
    if options.out is not None:
        return options.out.absolute()
    if len(options.runs) == 1 and options.runs[0].is_dir():
        return options.runs[0].absolute()
    return (Path("runs") / f"report-{time.strftime('%Y%m%d-%H%M%S')}").absolute()
