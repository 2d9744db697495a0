"""Ranks wait for their first scores together, and not for ever for one that no scorer reaches."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.trainer.ranks.groups import on_every_rank
from trainer import waits
from trainer.attendance import Attendance
from trainer.link import ScorerLink
from trainer.plan import Plan
from trainer.ranks.group import Group
from trainer.waits import await_first_scores

LONG_S, SOON_S = 30.0, 0.05


def waited(group: Group, served: tuple[int, ...], *, start_wait_s: float = LONG_S, stopped: bool = False) -> float:
    """Seconds that a rank of a run waits in which scorers reach only the ranks in `served`."""
    pool = SimpleNamespace(num_arrived=int(group.rank in served), wait=lambda timeout_s: None)
    service = SimpleNamespace(attendance=Attendance(), sessions=SimpleNamespace(num_resident=0))
    options = SimpleNamespace(service=SimpleNamespace(start_wait_s=start_wait_s), fallback="uniform")
    own: dict[str, Any] = {"pool": pool, "service": service, "options": options, "group": group}
    link = SimpleNamespace(**own, endpoint="ipc://t", push_wanted=False, num_scorers=0)
    seconds = await_first_scores(
        cast(ScorerLink, link), cast(Plan, SimpleNamespace(first_step=0)), 0, lambda: stopped and group.rank == 0
    )
    assert service.attendance.has_begun
    return seconds


def test_ranks_that_are_all_reached_start_at_once() -> None:
    assert max(on_every_rank(3, lambda group: waited(group, (0, 1, 2)))) < LONG_S / 2


def test_a_rank_that_no_scorer_reaches_keeps_the_others_for_a_moment_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waits, "REACHED_S", SOON_S)
    seconds = on_every_rank(2, lambda group: waited(group, (0,)))
    assert SOON_S <= max(seconds) < LONG_S / 2
    assert caplog.text.count("no scorer after") == 1


def test_without_any_scorer_ranks_start_together_when_the_time_is_over() -> None:
    seconds = on_every_rank(2, lambda group: waited(group, (), start_wait_s=SOON_S * (1 + 1000 * group.rank)))
    assert SOON_S <= max(seconds) < LONG_S / 2, "the first clock counts"


def test_a_rank_that_is_asked_to_end_ends_the_wait_of_all() -> None:
    assert max(on_every_rank(2, lambda group: waited(group, (), stopped=True))) < LONG_S / 2
