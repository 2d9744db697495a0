"""Pushes of a trainer whose I/O thread is gone or hangs: an error or a line in the log, and no silence."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import transport
from common.config import TrainerOptions
from common.data.sources import open_source
from common.models import build_model, find_head
from tests.service.peers import until
from trainer.assembly import assemble
from trainer.link import ScorerLink
from trainer.plan import Plan
from trainer.publisher import NUM_SLOTS


@pytest.fixture
def link(tmp_path: Path) -> Iterator[ScorerLink]:
    shared = {"data": "synthetic", "synthetic": {"num_samples": 64}, "model": "small", "mode": "stale"}
    options = TrainerOptions.model_validate(
        {**shared, "method": "loss", "steps": 100, "batch_size": 8, "device": "cpu", "log": {"margins": False}}
    )
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    head, plan = find_head(model, None), Plan.of(options)
    with ScorerLink(options, source, model, head, plan, 1, assemble(options, source, model, head, plan)) as link:
        yield link


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_push_says_at_once_that_nobody_can_be_told(link: ScorerLink) -> None:
    link._io.post(lambda: 1 / 0)
    until(lambda: not link._io.alive)
    with pytest.raises(RuntimeError, match="no scorer can be heard") as caught:
        link.push(1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_pushes_that_nobody_announces_have_the_log_say_what_hangs(
    link: ScorerLink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    until(lambda: link.service.weights.announced)
    entered, over = threading.Event(), threading.Event()
    with contextlib.ExitStack() as ending:
        ending.callback(over.set)
        link._io.post(lambda: (entered.set(), over.wait(10.0)))
        assert entered.wait(10.0)
        monkeypatch.setattr(transport, "STUCK_S", 0.0)
        for step in range(1, NUM_SLOTS):
            link.push(step)
        assert "has not come round" not in caplog.text
        link.push(NUM_SLOTS)
        assert "the thread trainer-io has not come round" in caplog.text
