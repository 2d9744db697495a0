"""`marginstream run`: scorers and trainer on this machine as processes of their own, one display, one exit code."""

import contextlib
import io
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.config import RunOptions, describe_options
from common.experiment.children import Child, Children, StopSignals
from common.experiment.closing import TRACE, closing_words, note_processes, report, say
from common.experiment.devices import Layout, find_layout, trainer_names
from common.experiment.display import make_display, short
from common.experiment.members import BAD_INPUT, Member
from common.experiment.pinning import Cores, Pinning, find_pinning
from common.experiment.progress import Progress
from common.experiment.ranks import Environment, Ranks
from common.experiment.supervise import Supervisor, Watch
from common.processes import private_folder
from common.run_folder import (
    MODEL,
    begun,
    claim_folder,
    default_out,
    discard_folder,
    held_folder,
    of_rank,
    write_options,
)
from common.scheduling import TALKING_CORES

DRY_ENDPOINT = "ipc://PRIVATE/trainer"


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
    with held_folder(folder), begun(folder, is_new=not options.resume):  # by nobody else: what follows writes into it
        write_options(folder, options)
    before = closing_words(folder)
    progress = Progress(options, folder)
    with StopSignals() as stop:
        with _endpoint(options) as endpoint, Children(folder) as children:
            say(_opening_words(options, layout, pinning, endpoint, folder))
            ranks, scorers = _members(options, layout, pinning, endpoint, children, folder)
            with ranks, make_display(sys.stdout) as display:
                supervisor = Supervisor(ranks, scorers, stop, Watch(progress, display), num_restarts=options.restarts)
                outcome = supervisor.run(resume=options.resume)
        note_processes(folder, [*ranks.members, *scorers], outcome)
        has_results = outcome.has_trained or (folder / MODEL).exists()
        untouched = outcome.code == BAD_INPUT and not (has_results or options.resume)
        report(
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
        told_of = {**environment, TALKING_CORES: ",".join(map(str, pinning.talking[rank])) or None}
        return children.start("trainer", name, own, pinning.trainers[rank], told_of, of_rank("trainer.log", rank))

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
