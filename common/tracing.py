"""A Chrome trace of some steps of the middle of a run: what every thread of the process did, to the microsecond."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile

log = logging.getLogger(__name__)

NUM_TRACED = 30  # steps, or chunks: a few megabytes for a small residual net


class Tracing:
    """Records `num` steps from the first that is said to be in the middle. One thread uses it, all are recorded.

    The first start of torch's profiler takes a second or two: that one comes on entering, and records nothing.

    Args:
        path: of the trace, JSON for ui.perfetto.dev or chrome://tracing.
        what: the things that are counted, in words, such as "steps".
    """

    def __init__(self, path: Path, what: str, num: int = NUM_TRACED) -> None:
        self._path = path
        self._what = what
        self._num = num
        self._seen = 0
        self._profiler: profile | None = None
        self.is_over = False

    def __enter__(self) -> Self:
        with _profiler():
            pass
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._profiler is not None:
            self._finish()
        elif not self.is_over:
            log.warning("no trace was written to %s: no %s came after the middle of the run", self._path, self._what)

    def before(self, *, is_middle: bool) -> None:
        """One more step begins; `is_middle`: recording may begin with it."""
        if self.is_over:
            return
        if self._profiler is not None:
            self._seen += 1
            if self._seen >= self._num:
                self._finish()
        elif is_middle:
            self._profiler = _profiler()
            self._profiler.start()

    def _finish(self) -> None:
        assert self._profiler is not None, "a trace ends that never began"
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what is still queued belongs to it
        self._profiler.stop()
        self._profiler.export_chrome_trace(str(self._path))
        self._profiler, self.is_over = None, True
        log.info("trace of %d %s: %s", self._seen or 1, self._what, self._path)


def _profiler() -> profile:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    settings: dict[str, Any] = {}
    with suppress(ImportError, TypeError):  # beside the thread that starts it: torch has no public name for that
        from torch._C._profiler import _ExperimentalConfig

        settings["experimental_config"] = _ExperimentalConfig(profile_all_threads=True)
    return profile(activities=activities, **settings)
