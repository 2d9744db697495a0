"""What a run is to a rank other than rank 0, which owns the run folder: a log of its own there, and no records."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.config import TrainerOptions
from common.errors import ConfigError
from common.run import Run, Timing, logging_to
from common.run_folder import GENERATION, of_rank
from trainer.ranks.group import Group

log = logging.getLogger(__name__)

SEEN_WITHIN_S = 60.0  # a network file system shows what another host wrote half a minute later
POLL_S = 0.2


class Follower:
    """With the part of `common.run.Run` that training looks at; `step` counts completed optimiser steps.

    Args:
        rank: 1 to W - 1.
        folder, generation: of rank 0's run.

    Raises on entering:
        ConfigError: this process does not see the folder.
    """

    def __init__(self, options: TrainerOptions, rank: int, folder: Path, generation: int) -> None:
        self.options = options
        self.rank = rank
        self.folder = folder
        self.generation = generation
        self.step = 0
        self.timing = Timing()
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "Follower":
        self._await_folder()
        self.timing = Timing()
        path = self.folder / of_rank("trainer.log", self.rank)
        self._closing.enter_context(logging_to(path, whose=f"rank {self.rank} "))
        log.info("rank %d of the run in %s, generation %d", self.rank, self.folder, self.generation)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *more: object) -> None:
        if kind is not None:
            log.error("ended at step %d by %s: %s", self.step, kind.__name__, error)
        self._closing.close()

    def resume(self, step: int) -> None:
        """Go on after `step`."""
        self.step = step

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens after this one; 0 is never."""
        return every > 0 and self.step > 0 and self.step % every == 0

    def log(self, figures: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Metrics are rank 0's."""

    def write_summary(self, figures: Mapping[str, Any]) -> None:
        """The summary is rank 0's, of all ranks."""

    def _await_folder(self) -> None:
        deadline = time.monotonic() + SEEN_WITHIN_S
        while not self._is_seen():
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"--out: rank {self.rank} does not see what rank 0 wrote in {self.folder}; all hosts of a run need "
                    "its folder, under the same path"
                )
            time.sleep(POLL_S)

    def _is_seen(self) -> bool:
        try:
            return (self.folder / GENERATION).read_text(encoding="ascii").strip() == str(self.generation)
        except OSError:
            return False


@contextlib.contextmanager
def joint_run(options: TrainerOptions, group: Group) -> Iterator[Run | Follower]:
    """Rank 0's run and the others' share in it; each rank's `options` may differ in what is its own.

    Raises:
        ConfigError: see `Run` and `Follower`; one rank raises it, the others EndedElsewhere.
    """
    with contextlib.ExitStack() as opened:
        run: Run | Follower
        with group.together():
            if group.is_first:
                run = opened.enter_context(Run(options))
        folder, generation = group.share((str(run.folder), run.generation) if group.is_first else ("", 0))
        with group.together():
            if not group.is_first:
                run = opened.enter_context(Follower(options, group.rank, Path(folder), generation))
        yield run
