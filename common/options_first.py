"""How a trainer or a scorer begins: options first, so that `--help` and their errors come at once."""

import sys
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from common.config import ScorerOptions, TrainerOptions, describe_options, load_options
from common.memory import keep_freed_memory
from common.open_files import allow_many_open_files
from common.waiting import stacks_on_signal

Kind = TypeVar("Kind", ScorerOptions, TrainerOptions)


def begin(
    kind: type[Kind], name: Literal["scorer", "trainer"], argv: Sequence[str] | None, work: Callable[[Kind], int]
) -> int:
    """The exit code of `work`, which imports torch; 0 after `--dry-run`, which prints the options instead.

    Args:
        argv: flags; those of this process by default.

    Raises:
        ConfigError: an option is wrong.
    """
    options = load_options(kind, argv)
    if options.dry_run:
        sys.stdout.write(describe_options(options, name))
        return 0
    stacks_on_signal()
    keep_freed_memory()
    allow_many_open_files()
    return work(options)
