"""Alarms: when they are raised, how often they are said, and when they are over."""

import itertools
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.protocol import Version
from trainer.alarms import REPEAT_S, Alarms
from trainer.leases import LeaseBook, Pace
from trainer.pool import Pool
from trainer.sessions import Sessions
from trainer.watching import DROPS, NO_SCORER, RESIDENT, Watching

PACE = Pace(chunks_per_step=1, max_staleness=16, push_every=8, first_step=0, stop_step=1000)


class Scene:
    """A pool, scorers and a clock that a test moves."""

    def __init__(self) -> None:
        self.pool = Pool(LeaseBook(8, PACE), min_candidates=8, chunks_per_step=1, exact=True)
        self.sessions: list[Any] = []
        self._ids = itertools.count()
        self.absent_s = 0.0
        self.now = 1000.0
        self.watching = Watching(cast(Sessions, self.sessions), self.pool, PACE, lambda: self.absent_s)

    def scorer(self, name: str = "s", backend: str = "torch") -> Any:
        self.sessions.append(SimpleNamespace(id=next(self._ids), name=name, resident=None, backend=backend))
        return self.sessions[-1]

    def pass_s(self, seconds: float) -> None:
        """Ticks ten times a second."""
        for _ in range(round(10 * seconds)):
            self.now += 0.1
            self.watching.tick(self.now)

    @property
    def raised(self) -> dict[str, int]:
        return dict(self.watching.alarms.counts)

    @property
    def holding(self) -> list[str]:
        return [name for name, holds in self.watching.alarms.holding.items() if holds]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_alarm_is_said_when_it_begins_now_and_then_while_it_holds_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alarms = Alarms()
    for now in range(int(2.5 * REPEAT_S)):
        alarms.judge("fire", f"it burns at {now}", float(now))
    alarms.judge("fire", None, 2.5 * REPEAT_S)
    assert caplog.messages == [
        "ALARM fire: it burns at 0",
        "ALARM fire: it burns at 60",
        "ALARM fire: it burns at 120",
        "over after 150 s: ALARM fire",
    ]
    assert (alarms.counts, alarms.holding) == ({"fire": 1}, {"fire": False})


def test_an_alarm_that_comes_and_goes_is_counted_each_time_and_said_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alarms = Alarms()
    for now in range(100):
        alarms.judge("fire", "it burns" if now % 2 == 0 else None, float(now))
    assert alarms.counts["fire"] == 50
    assert [message for message in caplog.messages if message.startswith("ALARM")] == ["ALARM fire: it burns"] * 2
    assert len(caplog.messages) == 4


def test_no_scorer_for_a_while_is_an_alarm_until_one_is_there(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.absent_s = 9.0
    scene.pass_s(2)
    assert scene.raised == {}
    scene.absent_s = 11.0
    scene.pass_s(2)
    assert scene.holding == [NO_SCORER]
    assert "ALARM no scorer: none has served for 11 s" in caplog.text
    scene.absent_s = 0.0
    scene.pass_s(2)
    assert scene.holding == []
    assert scene.raised == {NO_SCORER: 1}
    assert caplog.records[-1].levelno == logging.WARNING


def test_weights_that_stay_in_a_scorer_too_long_are_an_alarm(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scorer = scene.scorer("slow")
    scorer.resident = Version(1, 8)
    scene.pool.announce(Version(1, 96))
    scene.pool.advance(8 + 16 + 8)  # the bound, and a push more
    scene.pass_s(30)
    assert scene.raised == {}
    scene.pool.advance(100)
    scene.pass_s(2)
    assert scene.holding == [RESIDENT]
    assert "scorer slow has weights of step 8, 92 steps old; scores may be 16 steps old" in caplog.text
    scorer.resident = Version(1, 96)
    scene.pass_s(2)
    assert scene.holding == []


def test_a_fast_trainer_whose_scorer_keeps_loading_raises_no_alarm(scene: Scene) -> None:
    """What a scorer holds is told once a second: hundreds of steps late, and no sign of anything."""
    scorer = scene.scorer()
    for second in range(60):
        scene.pool.advance(400 + second)
        scene.pool.announce(Version(1, 400 + second))
        scorer.resident = Version(1, second)
        scene.pass_s(1)
    assert scene.raised == {}


def test_a_scorer_that_gets_no_weights_at_all_is_an_alarm_and_one_that_needs_none_is_not(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.scorer(backend="predictor")
    scene.pass_s(30)  # nothing is announced yet
    scene.pool.announce(Version(2, 0))
    scene.pass_s(30)
    assert scene.raised == {}
    scene.scorer("without")
    scene.scorer("of an earlier life").resident = Version(1, 500)
    scene.pass_s(8)
    assert scene.raised == {}
    scene.pass_s(5)
    assert scene.raised == {RESIDENT: 1}
    assert "and 1 more are like it" in caplog.text


def test_what_is_known_of_scorers_that_left_is_forgotten(scene: Scene) -> None:
    scene.pool.announce(Version(1, 0))
    for _ in range(5):
        scene.scorer()
        scene.pass_s(2)
        assert len(scene.watching._resident) == 1
        scene.sessions.clear()
    scene.pass_s(2)
    assert scene.watching._resident == {}
    assert scene.raised == {}


def test_too_many_drops_are_an_alarm_until_a_better_window(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.pass_s(1)
    for num_refused, holding in ((20, []), (30, [DROPS]), (0, [])):
        scene.pool.num_arrived += 100 - num_refused
        for _ in range(num_refused):
            scene.pool.refuse("no such lease")
        scene.pass_s(10)
        assert scene.holding == holding, num_refused
    assert "ALARM too many drops: of 100 chunks that came in 10 s, 30 were refused" in caplog.text


def test_a_few_chunks_say_nothing_about_drops(scene: Scene) -> None:
    scene.pass_s(1)
    for _ in range(19):
        scene.pool.refuse("no such lease")
    scene.pass_s(10)
    assert scene.raised == {}


def test_when_no_step_selects_any_more_all_alarms_are_over(scene: Scene) -> None:
    scene.absent_s = 100.0
    scene.pass_s(2)
    assert scene.holding == [NO_SCORER]
    scene.pool.advance(1000)
    scene.pass_s(2)
    assert scene.holding == []
