"""Scorers are told that their trainer has ended, unless it may be started again and go on."""

import contextlib
from pathlib import Path

import pytest

from common.config import TrainerOptions
from common.data.sources import open_source
from common.errors import NoScorer, PeerTimeout, RankLost
from common.models import build_model
from common.protocol import Goodbye, Revoke
from common.run import Run
from tests.service.peers import HandMadeScorer
from tests.service.test_service_protocol import Trainer
from trainer import service
from trainer.stream import SelectedBatches
from trainer.training import Training


@pytest.mark.parametrize("says_farewell", [True, False])
def test_scorers_that_are_to_look_for_the_next_trainer_hear_no_goodbye(
    says_farewell: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FAREWELL_S", 0.0)
    with Trainer() as trainer, HandMadeScorer(trainer.endpoint) as scorer:
        session = scorer.join().session
        trainer.service.says_farewell = says_farewell
        trainer.call(trainer.service.on_stop)
        trainer.call(lambda: trainer.service.revoke({session: [1]}))
        heard: list[type] = []
        while Revoke not in heard:  # which comes behind all others
            heard.append(type(scorer.hear(object)))
    assert (Goodbye in heard) is says_farewell


@pytest.mark.parametrize(
    ("error", "says_farewell"),
    [
        (NoScorer("none came"), True),
        (KeyboardInterrupt(), True),
        (RankLost("rank 1 has ended"), False),
        (PeerTimeout("no scores came"), False),
        (RuntimeError("CUDA out of memory"), False),
    ],
)
def test_scorers_wait_for_the_next_trainer_unless_it_would_end_likewise(
    error: BaseException, says_farewell: bool
) -> None:
    batches = never_iterated()
    with contextlib.suppress(type(error)), batches:
        raise error
    assert says_farewell is farewell_of(batches)


def test_an_error_that_was_handled_before_is_not_this_end() -> None:
    batches = never_iterated()
    try:
        raise RuntimeError("the run before")
    except RuntimeError:
        with batches:
            pass
    assert farewell_of(batches)


def test_a_run_of_the_command_ends_by_the_error_that_ended_its_training(tmp_path: Path) -> None:
    options = TrainerOptions(data="synthetic", steps=2, out=tmp_path / "run")
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    with contextlib.suppress(RankLost), Run(options) as run:
        batches = SelectedBatches(options, source, model, generation=run.generation)
        with Training(run, batches, source, model):
            raise RankLost("rank 1 has ended")
    assert not farewell_of(batches)


def never_iterated() -> SelectedBatches:
    options = TrainerOptions(data="synthetic", steps=2)
    source = open_source(options)
    return SelectedBatches(options, source, build_model(options.model, source.sample, seed=0))


def farewell_of(batches: SelectedBatches) -> bool:
    link = batches.watched.link
    assert link is not None
    return link.service.says_farewell
