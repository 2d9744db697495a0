"""The scorer's main loop, between a link and a backend that are told what to do."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from common.protocol import Candidates, Lease, Version, Welcome
from scorer.inbox import Work
from scorer.loop import serve
from scorer.staging import StagedWeights
from scorer.stopwatch import Stopwatch
from tests.common.protocol.examples import CANDIDATES, LEASE, WELCOME
from tests.scorer.clock import Clock


class Link:
    """Hands out work, a second after it was asked for."""

    def __init__(self, clock: Clock, *work: object) -> None:
        self.stopwatch = Stopwatch()
        self.answered: list[Candidates] = []
        self.most: list[int] = []
        self._clock = clock
        self._work = [*work, None]

    def next_work(self, most: int) -> Any:
        self.most.append(most)
        self._clock.now += 1
        return self._work.pop(0)

    def loaded(self, staged: StagedWeights) -> None:
        pass

    def answer_all(self, answers: Sequence[tuple[Lease, Candidates]]) -> None:
        self._clock.now += 0.25
        self.answered += [candidates for _, candidates in answers]


class Backend:
    """Reads for 2 seconds, scores for 4 and puts an answer together in half a second; loads in 3."""

    wants_weights = True
    version = Version(3, 40)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.begun: list[tuple[int, int]] = []

    def begin(self, welcome: Welcome) -> None:
        self.begun.append((welcome.rank, welcome.session))

    def load(self, staged: StagedWeights) -> None:
        self._clock.now += 3

    def score(self, lease: Lease, welcome: object) -> Candidates:
        self._clock.now += 6.5
        return replace(CANDIDATES, read_s=2.0, score_s=4.0)


class Joining(Backend):
    """Takes 3 leases together, in hardly more time than one."""

    most_together = 3

    def score_together(self, leases: Sequence[Lease], welcome: object) -> list[Candidates]:
        self._clock.now += 6.5
        return [
            replace(CANDIDATES, lease=lease.lease, read_s=2.0 / len(leases), score_s=4.0 / len(leases))
            for lease in leases
        ]


STAGED = StagedWeights.__new__(StagedWeights)
CHUNK = Work(LEASE, WELCOME, Version(3, 40))


def test_a_backend_that_takes_several_leases_gets_them_and_their_answers_leave_at_once(clock: Clock) -> None:
    others = tuple(replace(LEASE, lease=LEASE.lease + number) for number in (1, 2))
    link = Link(clock, Work(LEASE, WELCOME, Version(3, 40), others))
    serve(link, Joining(clock))  # type: ignore[arg-type]
    assert link.most == [3, 3]
    assert [answer.lease for answer in link.answered] == [LEASE.lease, LEASE.lease + 1, LEASE.lease + 2]
    assert link.stopwatch.spent()[:2] == pytest.approx((2.0, 4.0))
    alone = Link(clock, CHUNK)
    serve(alone, Backend(clock))  # type: ignore[arg-type]
    assert alone.most == [1, 1]


def test_every_second_of_a_scorer_is_booked(clock: Clock) -> None:
    link = Link(clock, STAGED, CHUNK, CHUNK)
    serve(link, Backend(clock))  # type: ignore[arg-type]
    assert len(link.answered) == 2
    assert link.stopwatch.spent()._asdict() == {"read_s": 4, "score_s": 8, "load_s": 3, "answer_s": 1.5, "idle_s": 4}


def test_a_trace_may_begin_with_weights_of_the_second_half_of_the_run(clock: Clock) -> None:
    seen: list[bool] = []

    class Tracing:
        def before(self, *, is_middle: bool) -> None:
            seen.append(is_middle)

    for steps in (79, 80, 81):
        work = CHUNK._replace(welcome=replace(WELCOME, steps=steps))
        serve(Link(clock, work), Backend(clock), Tracing())  # type: ignore[arg-type]
    assert seen == [True, True, False]


def test_the_backend_begins_once_for_each_session_and_not_when_the_rank_changes(clock: Clock) -> None:
    def chunk(rank: int, session: int) -> Work:
        return CHUNK._replace(welcome=replace(WELCOME, rank=rank, num_ranks=2, session=session))

    backend = Backend(clock)
    serve(Link(clock, *(chunk(*one) for one in ((0, 5), (1, 6), (0, 5), (1, 6), (1, 7), (0, 5)))), backend)  # type: ignore[arg-type]
    assert backend.begun == [(0, 5), (1, 6), (1, 7)]
