"""`python -m scorer`, also `marginstream scorer`: options first, so that `--help` and their errors come at once."""

import sys
from collections.abc import Sequence

from common.cli import guard
from common.config import ScorerOptions
from common.options_first import begin


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one scorer; flags are those of this process by default."""
    return guard(lambda: begin(ScorerOptions, "scorer", argv, _work))


def _work(options: ScorerOptions) -> int:
    from scorer import loop

    return loop.main(options)


if __name__ == "__main__":
    sys.exit(main())
