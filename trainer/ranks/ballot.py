"""What ranks agree on after each step, without a word more than the step itself needs: votes travel in the gradients.

A parameter beside the model's, always zero and never given to the optimiser, gets this rank's votes as its gradient:
adding votes · parameter to the loss does that and leaves the loss as it is. Gradients are averaged over the ranks, so
after the backward pass every rank reads the same mean: above zero, somebody voted for it.
"""

import collections
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from trainer.ranks.group import Group, raise_if_lost

MOST_LISTED = 8
READ_AFTER = 2  # steps on CUDA: by then the device is over with the step, and reading waits for nothing


@dataclass(frozen=True)
class Agreed:
    """What the ranks decided, the same on all of them.

    Attributes:
        step: optimiser steps that were completed when they voted; -1 before any vote.
        stop: whether the run ends.
        save: whether a checkpoint is due by time.
    """

    step: int = -1
    stop: bool = False
    save: bool = False


class Ballot:
    """Of one rank, for each of its steps. Owned by the training thread.

    Args:
        model: on its device, not wrapped.

    Attributes:
        model: the same wrapped, so that its gradients and the votes beside them are averaged over the ranks; for the
            forward pass of a step.
        stop_wanted, save_wanted: what this rank votes for, asked at each step.
        agreed: the newest result that every rank has read.
    """

    def __init__(self, model: nn.Module, group: Group) -> None:
        self._group = group
        self._voter = voter = _Voter(model)
        self._is_checked = False
        self.model = group.wrap(voter)
        self.stop_wanted: Callable[[], bool] = lambda: False
        self.save_wanted: Callable[[], bool] = lambda: False
        self.agreed = Agreed()
        self._votes = voter.votes
        self._papers = {  # on the device once and for all: a step copies nothing there
            (stop, save): torch.tensor([stop, save], dtype=self._votes.dtype, device=self._votes.device)
            for stop in (False, True)
            for save in (False, True)
        }
        self._reading: collections.deque[tuple[int, Tensor, torch.cuda.Event]] = collections.deque()

    def backward(self, loss: Tensor) -> None:
        """The backward pass of this rank's () loss, with its votes; gradients are then those of all ranks.

        Raises:
            RankLost: another rank has ended.
        """
        paper = self._papers[self.stop_wanted(), self.save_wanted()]
        voted = loss + torch.dot(self._votes, paper).to(loss.dtype)
        try:
            voted.backward()
        except RuntimeError as error:
            raise_if_lost(self._group, error)
            raise

    def count(self, step: int) -> None:
        """After the backward pass of the step that follows on `step` completed ones: read what can be read by now.

        Raises:
            ConfigError: a parameter of the model took no part in the first step, so its gradient is waited for.
        """
        if not self._is_checked:
            self._check_all_take_part()
        mean = self._votes.grad
        assert mean is not None, "votes are cast with every loss"
        self._votes.grad = None  # no optimiser clears it
        if not mean.is_cuda:
            self._read(step, mean)
            return
        host = torch.empty(2, dtype=mean.dtype, pin_memory=True)
        host.copy_(mean, non_blocking=True)
        copied = torch.cuda.Event(blocking=True)  # sleeps: the other threads need the core
        copied.record()
        self._reading.append((step, host, copied))
        if len(self._reading) > READ_AFTER:
            voted_at, host, copied = self._reading.popleft()
            copied.synchronize()
            self._read(voted_at, host)

    def _check_all_take_part(self) -> None:
        self._is_checked = True
        named = self._voter.model.named_parameters()
        idle = [name for name, parameter in named if parameter.requires_grad and parameter.grad is None]
        if idle:
            shown = ", ".join(idle[:MOST_LISTED]) + (", …" if len(idle) > MOST_LISTED else "")
            raise ConfigError(
                f"--model: {shown} took no part in the loss, and with several ranks every parameter has to; freeze "
                "what is not to learn (requires_grad_(False))"
            )

    def _read(self, step: int, mean: Tensor) -> None:
        stop, save = mean.tolist()
        self.agreed = Agreed(step, stop > 0, save > 0)


class _Voter(nn.Module):
    """A model and, beside it, the parameter whose gradient is the votes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        like = next(model.parameters())
        self.model = model
        self.votes = nn.Parameter(torch.zeros(2, dtype=like.dtype, device=like.device))

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)
