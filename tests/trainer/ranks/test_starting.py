"""Ranks that start together: whatever one of them cannot do ends all of them, and none is left waiting."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from common.config import TrainerOptions
from common.errors import ConfigError
from tests.trainer.ranks.groups import on_every_rank
from trainer import loop
from trainer.ranks.group import EndedElsewhere, Group


class Training:
    """Rank 1 cannot have one; going on from a checkpoint is done together."""

    def __init__(self, run: Any, batches: Any, source: Any, model: Any, stopping: Any, group: Group) -> None:
        self._group = group
        if group.rank == 1:
            raise ConfigError("--step.compile: needs a C++ compiler")

    def resume(self) -> None:
        self._group.share(["step-3.pt"])


@pytest.fixture
def _without_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = lambda *args, **kwargs: SimpleNamespace(generation=1)  # noqa: E731
    for name in ("set_threads", "rank_device", "open_source", "SelectedBatches", "Stopping"):
        monkeypatch.setattr(loop, name, nothing)
    monkeypatch.setattr(loop, "make_model", lambda *args: nn.Linear(1, 1))
    monkeypatch.setattr(loop, "rank_device", lambda name: "cpu")
    monkeypatch.setattr(loop, "joint_run", lambda *args: contextlib.nullcontext(nothing()))
    monkeypatch.setattr(loop, "Training", Training)


@pytest.mark.usefixtures("_without_all_else")
def test_a_rank_that_cannot_train_is_not_waited_for_by_those_that_would_resume(tmp_path: Path) -> None:
    options = TrainerOptions(out=tmp_path, resume=True)
    first, second = on_every_rank(2, lambda group: loop._train_together(options, group))
    assert isinstance(first, EndedElsewhere)
    assert isinstance(second, ConfigError)
