"""What an operator should look at: in the log when it begins, now and then while it holds, and when it is over."""

import collections
import logging

log = logging.getLogger(__name__)

REPEAT_S = 60.0


class Alarms:
    """Judged by one thread; the figures may be read by others.

    Attributes:
        counts: how often each began, by name.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._since: dict[str, float] = {}  # of those that hold
        self._next_line: dict[str, float] = {}  # no sooner than this, also where one comes and goes
        self._said: set[str] = set()  # of those that hold, the ones in the log

    def judge(self, name: str, words: str | None, now: float) -> None:
        """Whether it holds at `now` (monotonic seconds): what was seen and what would end it, or None."""
        if words is None:
            since = self._since.pop(name, None)
            if since is not None and name in self._said:
                log.warning("over after %.0f s: ALARM %s", now - since, name)
            self._said.discard(name)
            return
        if name not in self._since:
            self._since[name] = now
            self.counts[name] += 1
        if now >= self._next_line.get(name, now):
            self._next_line[name] = now + REPEAT_S
            self._said.add(name)
            log.error("ALARM %s: %s", name, words)

    @property
    def holding(self) -> dict[str, bool]:
        """Whether each that ever began holds now."""
        return {name: name in self._since for name in dict(self.counts)}
