"""`marginstream irreducible`: options first, so that `--help` and their errors come at once."""

import sys
from collections.abc import Sequence

from common.cli import guard
from common.config import IrreducibleOptions, describe_options, load_options


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command; flags are those of this process by default."""
    return guard(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    options = load_options(IrreducibleOptions, argv, prog="marginstream irreducible")
    if options.dry_run:
        sys.stdout.write(describe_options(options, "irreducible"))
        return 0
    from trainer import irreducible

    return irreducible.main(options)


if __name__ == "__main__":
    sys.exit(main())
