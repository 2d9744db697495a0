"""Fixtures of the tests with real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.models import build_model
from tests.preloaded import Preloaded
from tests.service.processes import Processes
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
