"""Fresh mode on several ranks: each scores for itself, in the precision that rank 0 chose."""

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from torch import nn

from common.config import TrainerOptions
from common.data.sources import open_source
from common.models import build_model
from tests.trainer.ranks.groups import on_every_rank
from tests.trainer.test_state import OPTIONS
from trainer import feeding
from trainer.ranks.group import Group
from trainer.stream import SelectedBatches


class Together(nn.Module):
    """As a wrapper whose forward pass is for all ranks at once."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, inputs: Any) -> NoReturn:
        raise AssertionError("the other ranks are not asked to come along")


def fresh(group: Group, **settings: Any) -> SelectedBatches:
    options = TrainerOptions.model_validate({**OPTIONS, "selection": {"warmup_fraction": 0.0}, **settings})
    source = open_source(options)
    model = Together(build_model(options.model, source.sample, seed=0))
    return SelectedBatches(options, source, model, group=group)


def test_a_rank_scores_without_the_others_what_it_owns() -> None:
    with fresh(Group(1, 2)) as batches:
        batch = next(iter(batches))
    assert batch.origin == "fresh"
    assert (batch.ids % 2 == 1).all()


def test_all_ranks_score_in_the_precision_that_rank_0_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(*args: Any, **named: Any) -> str:
        measured.append("bf16")
        return measured[-1]

    def unmade(model: nn.Module, head: nn.Linear, precision: str, **named: Any) -> Any:
        """Making one traces the model, for which torch patches all modules: a thing for one thread at a time."""
        return SimpleNamespace(precision=precision)

    monkeypatch.setattr(feeding, "choose_precision", measure)
    monkeypatch.setattr(feeding, "make_form", unmade)
    ranks = on_every_rank(2, lambda group: fresh(group, precision="auto"))
    assert [one._fresh.precision for one in ranks if isinstance(one, SelectedBatches)] == ["bf16", "bf16"]
    assert len(measured) == 1, "two measurements might differ"
