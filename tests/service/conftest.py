"""Fixtures of the tests with real processes, or with a trainer that a test plays."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import scorer.dialogue
import scorer.link
from common import buckets
from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.models import build_model
from common.transport import IOThread
from scorer import staging
from scorer.link import Link
from tests.preloaded import Preloaded
from tests.service.peers import HandMadeTrainer
from tests.service.processes import Processes
from tests.service.several_ranks import SeveralRanks
from tests.service.test_link_protocol import make_link
from trainer.stream import SelectedBatches


@pytest.fixture
def processes(tmp_path: Path, preloaded: Preloaded) -> Iterator[Processes]:
    with Processes(tmp_path, preloaded) as started:
        yield started


@pytest.fixture
def listening() -> Iterator[Callable[..., str]]:
    """Opens a trainer's service in this process; gives the endpoint."""
    opened: list[SelectedBatches] = []

    def listen(*flags: str) -> str:
        options = load_options(TrainerOptions, [*flags])
        source = open_source(options)
        model = build_model(options.model, source.sample, seed=0, head=options.head)
        opened.append(SelectedBatches(options, source, model).__enter__())
        assert opened[-1].endpoint is not None
        return opened[-1].endpoint

    yield listen
    for batches in opened:
        batches.__exit__(None, None, None)


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many buckets, and more than are asked for at once."""
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 100)
    monkeypatch.setattr(staging, "WINDOW", 4)


@pytest.fixture
def trainer() -> Iterator[HandMadeTrainer]:
    with HandMadeTrainer() as opened:
        yield opened


@pytest.fixture
def quick_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small weights, and a scorer that does every few milliseconds what it does ten times a second."""
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 1000)
    monkeypatch.setattr(scorer.dialogue, "HELLO_EVERY_S", 0.02)
    monkeypatch.setattr(scorer.link, "IOThread", functools.partial(IOThread, tick_s=0.01))


@pytest.fixture
def ranks(quick_ranks: None) -> Iterator[SeveralRanks]:
    with SeveralRanks() as opened:
        yield opened


@pytest.fixture
def link(ranks: SeveralRanks) -> Iterator[Link]:
    """A scorer's, with several ranks; to one trainer it is that of the module."""
    with make_link(ranks[0]) as opened:
        yield opened
