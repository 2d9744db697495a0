"""Looks now and then at how scorers and trainer get along, and raises alarms. Runs on the I/O thread.

| alarm | holds while |
|---|---|
| no scorer | none has served for `NO_SCORER_S` though the run selects |
| weights resident too long | a scorer's weights are a push older than any use allows, and the same for `RESIDENT_S` |
| too many drops | more than `MOST_DROPPED` of the chunks that came in a window were of no use |
"""

from collections.abc import Callable
from typing import NamedTuple

from common.protocol import Version
from trainer.alarms import Alarms
from trainer.leases import Pace
from trainer.pool import Pool
from trainer.sessions import Session, Sessions
from trainer.weights_desk import WITHOUT_WEIGHTS

EVERY_S = 1.0
NO_SCORER_S = 10.0
RESIDENT_S = 10.0
WINDOW_S = 10.0
MOST_DROPPED = 0.2
FEWEST_ARRIVALS = 20  # in a window that says anything

NO_SCORER = "no scorer"
RESIDENT = "weights resident too long"
DROPS = "too many drops"


class Arrivals(NamedTuple):
    """Chunks so far."""

    taken: int
    stale: int
    refused: int


class Watching:
    """Ticked by the I/O thread.

    Args:
        pace: of the leases.
        absent_s: seconds since any scorer served; 0 while one does or may still be starting.

    Attributes:
        alarms: what was raised.
    """

    def __init__(self, sessions: Sessions, pool: Pool, pace: Pace, absent_s: Callable[[], float]) -> None:
        self.alarms = Alarms()
        self._sessions = sessions
        self._pool = pool
        self._pace = pace
        self._absent_s = absent_s
        self._next = 0.0
        self._resident: dict[int, tuple[Version | None, float]] = {}  # by session, and since when
        self._window_ends = 0.0
        self._before = Arrivals(0, 0, 0)

    def tick(self, now: float) -> None:
        if now < self._next:
            return
        self._next = now + EVERY_S
        selects = self._pool.next_step < self._pace.stop_step
        self.alarms.judge(NO_SCORER, self._no_scorer() if selects else None, now)
        self.alarms.judge(RESIDENT, self._old_weights(now) if selects else None, now)
        if not self._window_ends:
            self._before, self._window_ends = self._arrivals(), now + WINDOW_S
        elif now >= self._window_ends:
            self.alarms.judge(DROPS, self._drops() if selects else None, now)
            self._window_ends = now + WINDOW_S

    def _no_scorer(self) -> str | None:
        absent_s = self._absent_s()
        if absent_s <= NO_SCORER_S:
            return None
        return f"none has served for {absent_s:.0f} s, so steps fall back or wait; start one, or see why it ended"

    def _old_weights(self, now: float) -> str | None:
        too_old = [(age, one) for one in self._sessions if (age := self._useless_age(one, now)) is not None]
        self._resident = {one.id: self._resident[one.id] for one in self._sessions if one.id in self._resident}
        if not too_old:
            return None
        age, worst = max(too_old, key=lambda found: found[0])
        what = (
            "no weights yet"
            if worst.resident is None
            else f"weights of step {worst.resident.step}, {age:.0f} steps old"
        )
        others = f", and {len(too_old) - 1} more are like it" if len(too_old) > 1 else ""
        return (
            f"scorer {worst.name} has {what}{others}; scores may be {self._pace.max_staleness} steps old: if weights "
            "take long to reach it, try --wire bf16 or a higher --max-staleness"
        )

    def _useless_age(self, session: Session, now: float) -> float | None:
        """Steps since its weights were copied, if nothing scored with them can be used, and none have come for long."""
        announced = self._pool.announced
        if announced is None or session.backend in WITHOUT_WEIGHTS:
            return None
        version, since = self._resident.get(session.id, (None, 0.0))
        if session.id not in self._resident or version != session.resident:
            version, since = self._resident[session.id] = session.resident, now
        is_known = version is not None and version.generation == announced.generation
        age = self._pool.next_step - version.step if is_known and version is not None else float("inf")
        # Between two pushes the newest weights there are may be older than what the next step allows.
        is_too_old = age > self._pace.max_staleness + self._pace.push_every
        return age if is_too_old and now - since > RESIDENT_S else None

    def _arrivals(self) -> Arrivals:
        refused = sum(self._pool.refused().values())
        return Arrivals(self._pool.num_arrived, self._pool.account()["dropped"], refused)

    def _drops(self) -> str | None:
        before, self._before = self._before, self._arrivals()
        taken, stale, refused = (now - then for now, then in zip(self._before, before, strict=True))
        came = taken + refused
        if came < FEWEST_ARRIVALS or stale + refused <= MOST_DROPPED * came:
            return None
        return (
            f"of {came} chunks that came in {WINDOW_S:.0f} s, {refused} were refused (late or twice), and {stale} were "
            f"too stale when their turn came; lower --push-every or --candidates, or raise --max-staleness"
        )
