"""`marginstream run`: scorers and trainer on this machine as processes of their own, one display, one exit code."""

import contextlib
import io
import json
import shutil
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.config import RunOptions, describe_options
from common.errors import TrainingDiverged
from common.experiment.children import Child, Children, StopSignals
from common.experiment.devices import Layout, find_layout, trainer_names
from common.experiment.display import make_display, short
from common.experiment.members import BAD_INPUT, REFUSED, Member, restarts_in_words
from common.experiment.pinning import Cores, Pinning, find_pinning
from common.experiment.progress import Progress
from common.experiment.ranks import Environment, Ranks
from common.experiment.supervise import Outcome, Supervisor, Watch, go_silent
from common.processes import private_folder
from common.run_folder import (
    OPTIONS,
    SUMMARY,
    claim_folder,
    default_out,
    discard_folder,
    has_ended,
    held_folder,
    of_rank,
    replace_file,
    to_json,
    write_options,
)

DRY_ENDPOINT = "ipc://PRIVATE/trainer"
TRACE = "trace-"  # begins the names of the files of --profile
ENDS_ALIKE = (BAD_INPUT, REFUSED, TrainingDiverged.exit_code)  # also if the run went on from its last checkpoint


def main(options: RunOptions) -> int:
    """Runs trainers and scorers until the trainers end. Returns the exit code.

    Scorers that die are started again, and so are, once, all trainers if one crashed after they had trained.

    The code of the trainer that failed first, or of rank 0; 2 or 3 of a scorer that could not start or was refused
    before any step; 130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP, which let trainers save; a second signal ends
    everything at once.

    Raises:
        ConfigError: the run folder cannot be used.
    """
    layout = find_layout(options)
    pinning = find_pinning(options, layout)
    if options.dry_run:
        sys.stdout.write(describe_run(options, layout, pinning))
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode shows ? for a dash
    folder = claim_folder(options)
    with held_folder(folder):  # by nobody else: what follows writes into it
        write_options(folder, options)
    before = _closing_words(folder)
    progress = Progress(options, folder)
    with StopSignals() as stop:
        with _endpoint(options) as endpoint, Children(folder) as children:
            _say(_opening_words(options, layout, pinning, endpoint, folder))
            ranks, scorers = _members(options, layout, pinning, endpoint, children, folder)
            with ranks, make_display(sys.stdout) as display:
                supervisor = Supervisor(ranks, scorers, stop, Watch(progress, display), num_restarts=options.restarts)
                outcome = supervisor.run(resume=options.resume)
        _note_processes(folder, [*ranks.members, *scorers], outcome)
        untouched = outcome.code == BAD_INPUT and not (outcome.has_trained or options.resume)
        _report(
            outcome,
            folder,
            ranks,
            scorers,
            is_kept=not untouched,
            is_resumed=options.resume,
            before=before,
        )
    if untouched:
        discard_folder(folder)
    return outcome.code


def _members(
    options: RunOptions, layout: Layout, pinning: Pinning, endpoint: str | None, children: Children, folder: Path
) -> tuple[Ranks, list[Member]]:
    """The trainers and the scorers; each begins anew with the same name, options, cores and log."""
    told = [options.for_trainer(listen=endpoint, out=folder, device=device) for device in layout.trainers]

    def begin_rank(rank: int, name: str, resume: bool, environment: Environment) -> Child:
        own = told[rank].model_copy(update={"resume": resume})
        return children.start("trainer", name, own, pinning.trainers[rank], environment, of_rank("trainer.log", rank))

    def scorer(name: str, device: str, cores: Cores) -> Member:
        assert endpoint is not None, "scorers need an endpoint"
        own = options.for_scorer(connect=endpoint, device=device, profile_to=folder / f"{TRACE}{name}.json")
        return Member(name, lambda _: children.start("scorer", name, own, cores))

    scorers = [
        scorer(f"scorer-{index}", device, cores)
        for index, (device, cores) in enumerate(zip(layout.scorers, pinning.scorers, strict=True))
        if endpoint is not None
    ]
    return Ranks(len(told), begin_rank), scorers


def describe_run(options: RunOptions, layout: Layout, pinning: Pinning) -> str:
    """What `--dry-run` prints: the layout and the resolved options of every process, those of one device together."""
    folder = options.out or default_out(options)
    listen = options.listen or (DRY_ENDPOINT if options.needs_scorers else None)
    parts = [f"# {line}" for line in _opening_words(options, layout, pinning, listen, folder).splitlines()]
    if listen == DRY_ENDPOINT:
        parts.append("# PRIVATE stands for a folder that is made at the start")
    if options.trainers > 1:
        parts.append("# the environment tells each trainer its RANK, and all of them WORLD_SIZE and where they meet")
    parts.append("")
    for device, names in _by_device(trainer_names(len(layout.trainers)), layout.trainers):
        parts.append(describe_options(options.for_trainer(listen=listen, out=folder, device=device), names))
    for device, names in _by_device([f"scorer-{index}" for index in range(len(layout.scorers))], layout.scorers):
        parts.append(describe_options(options.for_scorer(connect=listen or DRY_ENDPOINT, device=device), names))
    return "\n".join(parts)


def _by_device(names: Sequence[str], devices: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each device with the names of its processes."""
    for device in dict.fromkeys(devices):
        yield device, ", ".join(name for name, other in zip(names, devices, strict=True) if other == device)


def _opening_words(options: RunOptions, layout: Layout, pinning: Pinning, endpoint: str | None, folder: Path) -> str:
    which = "going on with the run in" if options.resume else "run folder"
    lines = [f"{which} {short(folder)}", layout.words, *([pinning.words] if pinning.words else [])]
    if (num := options.trainers) > 1:
        lines.append(f"each step trains on {num} x {options.batch_size} = {num * options.batch_size} samples")
    if not options.needs_scorers:
        why = "the trainer scores" if options.entry.needs_scorer else "nothing is scored"
        lines.append(f"no scorers are started: --mode {options.mode} --method {options.method}, {why}")
    elif not layout.scorers:
        lines.append(f"no scorers are started; others connect with: marginstream scorer --connect {endpoint}")
    return "\n".join(lines)


@contextlib.contextmanager
def _endpoint(options: RunOptions) -> Iterator[str | None]:
    """Where trainer and scorers meet; None if no scorer can take part. A private folder is removed in the end."""
    if not options.needs_scorers:
        yield options.listen
    elif options.listen is not None:
        yield _with_port(options.listen)
    else:
        with private_folder() as private:
            yield f"ipc://{private}/trainer"


def _with_port(endpoint: str) -> str:
    """The endpoint with a free port in place of `*`: scorers are told it before the trainer has bound it."""
    if not endpoint.startswith("tcp://") or not endpoint.endswith(":*"):
        return endpoint
    host = endpoint.removeprefix("tcp://").removesuffix(":*")
    address = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return f"tcp://{host}:{probe.getsockname()[1]}"


def _report(
    outcome: Outcome,
    folder: Path,
    ranks: Ranks,
    scorers: Sequence[Member],
    *,
    is_kept: bool,
    is_resumed: bool,
    before: str | None,
) -> None:
    """The closing words: how the run went, or the error of the process that ended it.

    Args:
        before: the closing words of an earlier life of the run, which are not said again.
    """
    words = _closing_words(folder)
    words = None if words == before else words
    stopped = outcome.code > 128  # a trainer that was stopped in order, by whomever, has left its words
    if outcome.failed is not None and not (stopped and words):
        sys.stderr.write(f"{_error(outcome.failed, ranks, is_kept=is_kept)}\n")
        sys.stderr.flush()
    elif words is not None:
        _say(words)
    elif stopped:
        _say(f"Ended by {signal.Signals(outcome.code - 128).name} before the trainer had saved.")
    if (restarts := restarts_in_words([ranks, *scorers])) is not None:
        _say(restarts)
    for scorer in outcome.lost:
        _say(f"{scorer.now.fate()} before the end; the run went on without it, see {short(scorer.now.log)}")
    if traces := sorted(folder.glob(f"{TRACE}*.json")):
        names = ", ".join(path.name for path in traces)
        _say(f"Chrome traces, for ui.perfetto.dev or chrome://tracing, in the run folder: {names}")
    if outcome.code not in (0, *ENDS_ALIKE) and (outcome.has_trained or is_resumed) and not has_ended(folder):
        _say(f"Go on with: marginstream run --config {short(folder / OPTIONS)} --resume")
    if is_kept:
        _say(f"Run folder: {short(folder)}")


def _error(failed: Child, ranks: Ranks, *, is_kept: bool) -> str:
    """What a process said about its failure, and which of several ranks it is."""
    error = failed.error()
    if len(ranks.members) == 1 or failed not in ranks.children or failed.fate() in error:
        return error
    return f"{error}\n{failed.fate()}{f', see {short(failed.log)}' if is_kept else ''}"


def _note_processes(folder: Path, members: Sequence[Member], outcome: Outcome) -> None:
    """Adds what became of every process, and the signal that came, to the trainer's summary, where that left one."""
    path = folder / SUMMARY
    with contextlib.suppress(FileNotFoundError):
        summary = json.loads(path.read_text(encoding="utf-8"))
        summary["processes"] = [member.record() for member in members]
        if "stopped_by" in summary and outcome.code > 128:  # the trainer is always told by SIGTERM
            summary["stopped_by"] = signal.Signals(outcome.code - 128).name
        replace_file(path, to_json(summary, indent=2) + "\n")


def _closing_words(folder: Path) -> str | None:
    """The trainer's summary in words; None if it did not end in order."""
    try:
        words = json.loads((folder / SUMMARY).read_text(encoding="utf-8")).get("words")
    except FileNotFoundError:
        return None
    return str(words) if words else None


def _say(text: str) -> None:
    try:
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            text = "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in text.splitlines())
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        go_silent()
