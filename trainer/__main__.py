"""`python -m trainer`, also `marginstream trainer`: options first, so that `--help` and their errors come at once."""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from common.cli import guard
from common.config import TrainerOptions
from common.options_first import begin
from trainer.ranks.environment import has_others


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one trainer; flags are those of this process by default."""
    try:
        code = guard(lambda: begin(TrainerOptions, "trainer", argv, _work))
    except Exception:
        if not has_others():
            raise
        traceback.print_exc()
        code = 1
    if code and has_others():
        _leave(code)
    return code


def _leave(code: int) -> None:
    """End now: what torch.distributed does at the end of a process may wait for ranks that no longer answer."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _work(options: TrainerOptions) -> int:
    from trainer import loop

    return loop.main(options)


if __name__ == "__main__":
    sys.exit(main())
