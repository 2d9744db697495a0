"""Whether any scorer serves the run, and since when none does."""

import math
import time

from common.errors import NoScorer

HURRIED_S = 20.0  # less than whoever asked waits before it insists


class Attendance:
    """Told by the I/O thread at every tick, asked by any; neither waits for the other."""

    def __init__(self) -> None:
        self._is_served = False
        self._begun_at = math.inf
        self._left_at = -math.inf
        self._hurried_at = math.inf

    def begin(self) -> None:
        """Scorers had their time to start: from now on their absence counts."""
        self._begun_at = time.monotonic()

    def hurry(self) -> None:
        """The run was asked to end, which it can only after one more step. Any thread, also a signal handler."""
        self.begin()
        self._hurried_at = time.monotonic()

    def is_late(self) -> bool:
        """Whether a step should no longer be waited for, as the run was asked to end `HURRIED_S` ago."""
        return time.monotonic() - self._hurried_at > HURRIED_S

    @property
    def has_begun(self) -> bool:
        """Whether nobody waits for scorers to start any more."""
        return self._begun_at < math.inf

    def note(self, num_serving: int, now: float) -> None:
        """At `now`, by time.monotonic, so many scorers are there that are not stuck."""
        if self._is_served and not num_serving:
            self._left_at = now
        self._is_served = num_serving > 0

    def absent_s(self) -> float:
        """Seconds since the last scorer left, counted from `begin` at the earliest; 0 while one is there."""
        if self._is_served:
            return 0.0
        return max(0.0, time.monotonic() - max(self._begun_at, self._left_at))

    def require(self, within_s: float, endpoint: str) -> None:
        """Raise NoScorer if there was none for longer than `within_s` seconds; 0 asks for none."""
        if within_s and (absent_s := self.absent_s()) > within_s:
            raise NoScorer(
                f"no scorer has served this run for {absent_s:.0f} s, and --service.require-scorer-s is {within_s:g}; "
                f"start one with: marginstream scorer --connect {endpoint} and go on with --resume, or leave "
                "--service.require-scorer-s out to train on without"
            )
