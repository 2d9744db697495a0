"""`python -m scorer`, also `marginstream scorer`: options first, so that `--help` and their errors come at once."""

import sys
from collections.abc import Sequence

from common.cli import guard
from common.config import ScorerOptions, describe_options, load_options
from common.memory import keep_freed_memory
from common.open_files import allow_many_open_files
from common.waiting import stacks_on_signal


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one scorer; flags are those of this process by default."""
    return guard(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    options = load_options(ScorerOptions, argv)
    if options.dry_run:
        sys.stdout.write(describe_options(options, "scorer"))
        return 0
    stacks_on_signal()
    keep_freed_memory()
    allow_many_open_files()
    from scorer import loop

    return loop.main(options)


if __name__ == "__main__":
    sys.exit(main())
