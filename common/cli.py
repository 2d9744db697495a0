"""The console command: `marginstream run | compare | trainer | …`, and what each does around its work."""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

from common.errors import ConfigError, MarginstreamError

INTERRUPTED = 130

_COMMANDS = {
    "run": "scorers and trainer on this machine, until the run is complete",
    "compare": "the same training with samples selected in several ways, several times, and a report of it",
    "plan": "what to run on this machine, from half a minute of measuring it",
    "report": "a page about runs that have ended",
    "trainer": "one trainer; scorers connect to it",
    "scorer": "one scorer for a trainer that runs elsewhere",
    "keygen": "keys for trainer and scorers that meet over tcp",
    "irreducible": "the table of irreducible losses that --method rho-loss needs, from a model of the held-out data",
}
_MODULES = {"trainer": "trainer", "scorer": "scorer", "irreducible": "trainer.irreducible_command"}

_HELP = """usage: marginstream COMMAND [OPTIONS]

Train on the samples that still teach something: scorers stream scored candidates to a trainer.

commands:
{commands}

marginstream COMMAND --help lists the options of a command.
marginstream --version prints the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command: 0 for success, else one from common.errors, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guard(lambda: _dispatch(words))


def guard(body: Callable[[], int]) -> int:
    """The exit code of `body`, its errors for people as `error: ...` on stderr. Other exceptions rise."""
    try:
        return body()
    except MarginstreamError as error:
        with contextlib.suppress(OSError):  # it may be a file, on a disk that is full
            sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _dispatch(words: Sequence[str]) -> int:
    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        width = max(map(len, _COMMANDS))
        commands = "\n".join(f"  {name:{width}}  {text}" for name, text in _COMMANDS.items())
        sys.stdout.write(_HELP.format(commands=commands))
        return 0
    if command == "--version":
        sys.stdout.write(f"marginstream {metadata.version('marginstream')}\n")
        return 0
    if command == "run":
        return _run(words[1:])
    if command == "compare":
        return _compare(words[1:])
    if command == "plan":
        return _plan(words[1:])
    if command == "report":
        return _report(words[1:])
    if command == "keygen":
        return _keygen(words[1:])
    if command in _MODULES:
        # A process of its own, the same as everywhere else: this one becomes it.
        os.execv(sys.executable, [sys.executable, "-m", _MODULES[command], *words[1:]])
    meant = difflib.get_close_matches(command, _COMMANDS, n=1)
    remedy = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(_COMMANDS)}"
    raise ConfigError(f"unknown command {command}; {remedy}")


def _run(argv: Sequence[str]) -> int:
    # Imported here: trainer and scorer import the options in their own process, and should not pay for it twice.
    from common.config import RunOptions, load_options

    options = load_options(RunOptions, argv)
    from common.experiment import launch

    return launch.main(options)


def _compare(argv: Sequence[str]) -> int:
    from common.config.compare import CompareFlags
    from common.config.loading import load_options

    options = load_options(CompareFlags, argv)
    from common.experiment.compare import command

    return command.main(options, argv)


def _plan(argv: Sequence[str]) -> int:
    from common.config.loading import load_options
    from common.config.plan import PlanOptions

    options = load_options(PlanOptions, argv, prog="marginstream plan")
    from common.experiment.plan import command

    return command.main(options, argv)


def _report(argv: Sequence[str]) -> int:
    from common.config.loading import load_options
    from common.config.report import ReportOptions

    options = load_options(ReportOptions, argv, prog="marginstream report")
    from common.experiment.report import command

    return command.main(options, argv)


def _keygen(argv: Sequence[str]) -> int:
    from common.config.keygen import KeygenOptions
    from common.config.loading import load_options

    options = load_options(KeygenOptions, argv, prog="marginstream keygen")
    from common.security import keygen

    return keygen.main(options)


if __name__ == "__main__":
    sys.exit(main())
