"""Scorers that died are started again, each after a pause that doubles, a bounded number of times."""

import math
import time
from collections.abc import Callable, Sequence

from common.experiment.display import short
from common.experiment.members import Member

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


def pause_s(num_restarts: int) -> float:
    """Before the next start of what was started again so often: 0.5, 1, 2, 4, 8, 16, 30, 30, … seconds."""
    return float(min(FIRST_PAUSE_S * 2.0 ** min(num_restarts, 10), LONGEST_PAUSE_S))


class Restarts:
    """Ticked while the trainer runs.

    Args:
        most: starts of each scorer beyond its first.
        say: told what happens, in a line of words.
    """

    def __init__(
        self,
        scorers: Sequence[Member],
        most: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scorers = scorers
        self._most = most
        self._say = say
        self._clock = clock
        self._due: dict[str, float] = {}  # when those that wait start, by name
        self._given_up: set[str] = set()

    def tick(self) -> None:
        for scorer in self._scorers:
            if not scorer.has_failed or scorer.name in self._given_up:
                continue
            if scorer.name not in self._due:
                self._decide(scorer)
            elif self._clock() >= self._due[scorer.name]:
                del self._due[scorer.name]
                scorer.restart()

    def _decide(self, scorer: Member) -> None:
        if scorer.is_hopeless or scorer.num_restarts >= self._most:
            self._given_up.add(scorer.name)
            after = f" after {scorer.num_restarts} restarts" if scorer.num_restarts else ""
            self._say(f"{scorer.now.fate()}{after}; the run goes on without it, see {short(scorer.now.log)}")
            return
        wait_s = pause_s(scorer.num_restarts)
        self._due[scorer.name] = self._clock() + wait_s
        nth = f"restart {scorer.num_restarts + 1} of {self._most}"
        self._say(f"{scorer.now.fate()}; {nth} in {wait_s:g} s, see {short(scorer.now.log)}")

    def follow_trainer(self, trainer: Member) -> None:
        """Scorers may have been sent home by a trainer before this one, which goes on in its place and wants them."""
        if not trainer.num_restarts:
            return
        for scorer in self._scorers:
            if scorer.now.code == 0 and scorer.now.started_at < trainer.now.started_at:
                scorer.start()

    def words(self) -> str:
        """What is wrong with scorers at the moment; "" if nothing is."""
        return "; ".join(self._words_on(scorer) for scorer in self._scorers if scorer.has_failed)

    def _words_on(self, scorer: Member) -> str:
        due = self._due.get(scorer.name)
        if due is None:
            return f"{scorer.now.fate()}, see {short(scorer.now.log)}"
        return f"{scorer.now.fate()}, starts again in {max(1, math.ceil(due - self._clock()))} s"
