"""Votes that travel in the gradients."""

import re

import pytest
import torch
from torch import nn

from common.errors import ConfigError, RankLost
from trainer.ranks import ballot as module
from trainer.ranks.ballot import Agreed, Ballot
from trainer.ranks.group import ALONE


def make(model: nn.Module | None = None) -> Ballot:
    return Ballot(nn.Linear(3, 2) if model is None else model, ALONE)


def step(ballot: Ballot, number: int) -> None:
    ballot.backward(ballot.model(torch.ones(4, 3)).mean())
    ballot.count(number)


def test_what_a_rank_wants_at_a_step_is_agreed_after_it() -> None:
    ballot, wanted = make(), {"stop": False, "save": False}
    ballot.stop_wanted, ballot.save_wanted = lambda: wanted["stop"], lambda: wanted["save"]
    assert ballot.agreed == Agreed()
    for number, (stop, save) in enumerate([(False, False), (True, False), (False, True), (True, True), (False, False)]):
        wanted |= {"stop": stop, "save": save}
        step(ballot, number)
        assert ballot.agreed == Agreed(number, stop, save)


def test_one_vote_of_many_counts() -> None:
    """Gradients are averaged over the ranks: of a thousand ranks, one that wants to stop is a thousandth."""
    ballot = make()
    ballot.backward(ballot.model(torch.ones(4, 3)).mean())
    ballot._votes.grad = torch.tensor([1 / 1000, 0.0])
    ballot.count(7)
    assert ballot.agreed == Agreed(7, stop=True, save=False)


def test_votes_change_neither_the_loss_nor_the_gradients_of_the_model() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    inputs = torch.randn(4, 3)
    (model(inputs) ** 2).mean().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    ballot = make(model)
    ballot.stop_wanted = lambda: True
    ballot.backward((ballot.model(inputs) ** 2).mean())
    assert all(torch.equal(one.grad, other) for one, other in zip(model.parameters(), expected, strict=True))
    assert [name for name, _ in model.named_parameters()] == ["weight", "bias"], "no optimiser is given the votes"


def test_a_loss_that_is_not_finite_leaves_the_votes_alone() -> None:
    ballot = make()
    ballot.save_wanted = lambda: True
    ballot.backward(ballot.model(torch.ones(4, 3)).mean() * torch.nan)
    ballot.count(0)
    assert ballot.agreed == Agreed(0, stop=False, save=True)


def test_a_model_in_half_precision_votes_too() -> None:
    ballot = make(nn.Linear(3, 2).bfloat16())
    ballot.stop_wanted = lambda: True
    ballot.backward(ballot.model(torch.ones(4, 3, dtype=torch.bfloat16)).float().mean())
    ballot.count(0)
    assert ballot.agreed.stop


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("[/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:29510", RankLost),
        ("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x2)", RuntimeError),
    ],
)
def test_a_rank_that_is_gone_is_told_from_a_model_that_fails(
    said: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(self: torch.Tensor) -> None:
        raise RuntimeError(said)

    ballot = make()
    loss = ballot.model(torch.ones(4, 3)).mean()
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(kind, match=re.escape(said[-20:])):
        ballot.backward(loss)


def test_a_parameter_that_takes_no_part_in_the_loss_is_named() -> None:
    """Its gradient would be waited for, and the votes with it."""
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2), "frozen": nn.Linear(3, 2)})
    model["frozen"].requires_grad_(False)
    ballot = make(model)
    ballot.backward(model["used"](torch.ones(4, 3)).mean())
    with pytest.raises(ConfigError, match=r"--model: idle.weight, idle.bias took no part in the loss"):
        ballot.count(0)


@pytest.mark.gpu
def test_on_a_gpu_votes_are_read_two_steps_later_and_in_order() -> None:
    ballot = make(nn.Linear(3, 2).cuda())
    wanted = [False, True, False, False, True, False, False, False]
    results = []
    for number, want in enumerate(wanted):
        ballot.stop_wanted = lambda want=want: want  # type: ignore[misc]
        ballot.backward(ballot.model(torch.ones(4, 3, device="cuda")).mean())
        ballot.count(number)
        results.append(ballot.agreed)
    delay = module.READ_AFTER
    assert results[:delay] == [Agreed()] * delay
    assert results[delay:] == [Agreed(number, want) for number, want in enumerate(wanted[:-delay])]
