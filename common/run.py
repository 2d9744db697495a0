"""One run and its folder: options, environment, generation, metrics, curves, log, summary.

    with Run(options) as run:
        with run.timing("step"):
            ...
        run.step += 1
        if run.due(options.log.log_every):
            run.log({"loss/selected": loss})
        run.write_summary(figures)

Files: options.toml, environment.json, generation, metrics.jsonl, tensorboard/, trainer.log, summary.json; checkpoints/
is `trainer.checkpoint`'s.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from common.config import TrainerOptions
from common.curves import Curves
from common.environment import describe_environment
from common.errors import MarginstreamError, RankLost
from common.line_writer import LineWriter
from common.run_folder import (
    ENVIRONMENT,
    METRICS,
    SUMMARY,
    begun,
    claim_folder,
    discard_folder,
    drop_lines_after,
    held_folder,
    is_supervised,
    next_generation,
    to_json,
    write_options,
)
from common.whole_files import replace_file

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOGGED_PACKAGES = ("trainer", "common")

logger = logging.getLogger(__name__)


class Timing:
    """Seconds spent in each phase of the loop. Phases are not nested; one thread uses it.

    Attributes:
        mark: opened around each phase by its name, for a trace.
        seconds: by phase.
    """

    def __init__(self) -> None:
        self.mark: Callable[[str], AbstractContextManager[object]] = lambda phase: nullcontext()
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds the time inside the block to the phase, also when it raises. Times the host: a GPU may lag behind."""
        started = time.perf_counter()
        try:
            with self.mark(phase):
                yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def restore(self, wall_s: float, seconds: Mapping[str, float]) -> None:
        """Count on from an earlier life of the run."""
        self._started = time.perf_counter() - wall_s
        self.seconds.clear()
        self.seconds.update(seconds)

    def shares(self) -> dict[str, float]:
        """`PHASE_fraction` of the wall-clock time since the start, 0 to 1 for each phase."""
        wall_s = max(self.wall_s, 1e-9)
        return {f"{phase}_fraction": seconds / wall_s for phase, seconds in self.seconds.items()}


class Run:
    """Owns the run folder from start to end. `step` counts completed optimiser steps; the loop raises it.

    Of several trainer ranks it is rank 0's, see `trainer.ranks.follower` for the others.

    Raises on entering:
        ConfigError: the folder holds files already, another trainer writes there, or its run cannot be resumed.
    """

    rank = 0

    def __init__(self, options: TrainerOptions) -> None:
        self.options = options
        self.step = 0
        self.timing = Timing()
        self.folder = Path()
        self.generation = 0
        self._metrics: LineWriter | None = None
        self._curves: Curves | None = None
        self._closing = ExitStack()

    def __enter__(self) -> "Run":
        self.folder = claim_folder(self.options)
        self.timing = Timing()
        with ExitStack() as opened:
            opened.enter_context(held_folder(self.folder))
            is_alone = not is_supervised(self.options, self.folder)
            with begun(self.folder, is_new=is_alone and not self.options.resume):
                if is_alone:
                    write_options(self.folder, self.options)  # first: by it the folder is known as that of a run
                self.generation = next_generation(self.folder)
                replace_file(self.folder / ENVIRONMENT, to_json(describe_environment(), indent=2) + "\n")
                opened.enter_context(logging_to(self.folder / "trainer.log"))
            self._closing = opened.pop_all()
        logger.info("run folder %s, generation %d", self.folder, self.generation)
        if not self.options.resume:
            self._open_records()
        return self

    def resume(self, step: int) -> None:
        """Go on after `step`: what an earlier life recorded beyond it is taken out. Once, before anything is logged."""
        self.step = step
        drop_lines_after(self.folder / METRICS, step)
        (self.folder / SUMMARY).unlink(missing_ok=True)  # of a run that was stopped
        self._open_records()

    def _open_records(self) -> None:
        (self.folder / METRICS).touch()
        self._metrics = LineWriter(self.folder / METRICS)
        if self.options.log.tensorboard:
            self._curves = Curves(self.folder / "tensorboard", self.step + 1 if self.options.resume else None)
            self._closing.callback(self._curves.close)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            logger.error("ended at step %d by %s: %s", self.step, kind.__name__, error)
        self._metrics = self._curves = None
        self._closing.close()
        is_explained = isinstance(error, MarginstreamError) and not isinstance(error, RankLost)  # that names a log here
        never_trained = self.step == 0 and is_explained and not self.options.resume
        if never_trained and not is_supervised(self.options, self.folder):  # else the supervisor does it
            discard_folder(self.folder)

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens after this one; 0 is never."""
        return every > 0 and self.step > 0 and self.step % every == 0

    def log(self, figures: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Appends one line of metrics and a point to each curve, at the current step; a full disk costs only these.

        Args:
            figures, more: numbers by tag, such as `loss/selected`, `accuracy/held_out`, `staleness/mean`. A tensor
                costs a synchronisation. None and non-finite ones are null in the file and absent from the curves.
        """
        assert self._metrics is not None, "Run.log outside of the with block, or before Run.resume"
        values = {**(figures or {}), **more}
        line = to_json({"step": self.step, "wall_s": round(self.timing.wall_s, 3), **values})
        self._metrics.write([line])
        if self._curves is not None:
            self._curves.add(values, self.step)

    def write_summary(self, figures: Mapping[str, Any]) -> None:
        """Writes summary.json, whole or not at all."""
        replace_file(self.folder / SUMMARY, to_json(dict(figures), indent=2) + "\n")


@contextmanager
def logging_to(path: Path, *, whose: str = "") -> Iterator[None]:
    """Sends this project's log lines to the file and to stderr, once where stderr is that file.

    Args:
        whose: said in each line, where several processes write to one terminal.
    """
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    if not _is_stderr(path):
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LOG_FORMAT.replace("%(name)s", f"{whose}%(name)s")))
    loggers = [logging.getLogger(name) for name in LOGGED_PACKAGES]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.INFO)
        for handler in handlers:
            each.addHandler(handler)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
            for handler in handlers:
                each.removeHandler(handler)
        for handler in handlers:
            with suppress(OSError):  # lines that a full disk did not take, each of which was reported
                handler.close()


def _is_stderr(path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(sys.stderr.fileno()), path.stat())
    except (OSError, ValueError, AttributeError):
        return False  # no real stderr, as under a test's capture
