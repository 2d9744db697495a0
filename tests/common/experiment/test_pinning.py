"""Which cores the processes of a run get on a small machine."""

import os

import pytest

from common.config import RunOptions
from common.experiment.devices import lay_out
from common.experiment.pinning import Pinning, find_pinning, pin


def pinned(allowed: int, *, num_gpus: int = 0, **options: object) -> tuple[object, ...]:
    """Cores of the trainer and of each scorer, of a machine with so many cores."""
    run = RunOptions.model_validate({"threads": 1, **options})
    found = pin(run, lay_out(run, num_gpus), tuple(range(allowed)))
    return (*found.trainers, *found.scorers)


def test_every_process_gets_cores_of_its_own_and_the_trainer_those_to_spare() -> None:
    assert pinned(2) == ((0,), (1,))
    assert pinned(4) == ((0, 1, 2), (3,))
    assert pinned(4, scorers=3) == ((0,), (1,), (2,), (3,))
    assert pinned(4, threads=2) == ((0, 1), (2, 3))


@pytest.mark.parametrize(
    ("cores", "options", "expected"),
    [
        (2, {}, ((1,),)),
        (2, {"scorers": 2}, ((1,),)),
        (4, {"threads": 2}, ((2, 3),)),
        (3, {}, ((),)),
        (2, {"mode": "fresh"}, ((),)),
        (4, {"trainers": 2}, ((), (3,))),
        (2, {"trainers": 2}, ((), ())),
    ],
)
def test_what_talks_goes_to_the_scorers_cores_where_its_trainer_has_none_to_spare(
    cores: int, options: dict[str, object], expected: tuple[tuple[int, ...], ...]
) -> None:
    run = RunOptions.model_validate({"threads": 1, **options})
    assert pin(run, lay_out(run, 0), tuple(range(cores))).talking == expected


def test_ranks_get_cores_of_their_own_too_and_rank_0_those_to_spare() -> None:
    assert pinned(4, trainers=2, scorers=2) == ((0,), (1,), (2,), (3,))
    assert pinned(4, trainers=2) == ((0, 1), (2,), (3,))
    assert pinned(3, trainers=2, scorers=2) == ((0,), (1,), (2,), (2,))
    assert pinned(4, trainers=2, num_gpus=2, scorer_device="cpu", scorers=2) == ((0,), (1,), (2,), (3,))
    assert set(pinned(2, trainers=2)) == {None}


def test_scorers_share_what_the_trainer_leaves_where_cores_do_not_suffice() -> None:
    assert pinned(2, scorers=2) == ((0,), (1,), (1,))
    assert pinned(3, threads=2) == ((0, 1), (2,))


@pytest.mark.parametrize(
    "options",
    [{"pin": "none"}, {"mode": "uniform"}, {"mode": "fresh"}, {"threads": 2}, {"scorers": 0}, {"scorer_device": "mps"}],
)
def test_nothing_is_pinned_where_it_is_unwanted_or_would_take_from_the_trainer(options: dict[str, object]) -> None:
    assert set(pinned(2, **options)) == {None}


def test_larger_machines_and_scorers_on_gpus_are_left_to_the_system() -> None:
    assert pinned(5) == (None, None)
    assert pinned(4, num_gpus=2) == (None, None)
    assert pinned(2, device="cuda:0", scorer_device="cpu") == ((0,), (1,))


def test_only_cores_that_the_run_may_use_are_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 3})
    options = RunOptions(threads=1)
    assert find_pinning(options, lay_out(options, 0)) == Pinning(((3,),), ((7,),), ((7,),))


def test_the_pinning_is_put_in_words() -> None:
    assert (
        Pinning(((0, 1),), ((2,), None, (3,))).words
        == "pinned: trainer to cores 0, 1, scorer-0 to core 2, scorer-2 to core 3"
    )
    assert Pinning(((0,), (1,)), (None,)).words == "pinned: trainer-0 to core 0, trainer-1 to core 1"
    assert Pinning((None,), (None,)).words is None
