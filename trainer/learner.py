"""What learns: model, optimiser, schedule and the step that they make, with a state to go on from."""

import hashlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.config import TrainerOptions
from common.models import unwrap
from trainer.optimizers import build_optimizer, build_schedule
from trainer.ranks.ballot import Ballot
from trainer.ranks.group import ALONE, Group
from trainer.stepping import make_step


class Learner:
    """Built from the options, with the global generators seeded and the model in training mode.

    Args:
        model: on its device; wrapped or not. Of several ranks it is not wrapped, and gets rank 0's parameters.
        group: the ranks whose gradients are averaged; each draws from generators of its own.
        before_backward: called in each step.

    Attributes:
        step: trains on one batch, see `trainer.stepping.make_step`.
        ballot: what several ranks vote with in each step.
    """

    def __init__(
        self,
        options: TrainerOptions,
        model: nn.Module,
        group: Group = ALONE,
        before_backward: Callable[[], None] = lambda: None,
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self._optimizer = build_optimizer(options, model.parameters(), capturable=options.step.capture)
        self._schedule = build_schedule(self._optimizer, options, options.steps)
        self.ballot = Ballot(model, group) if group.size > 1 else None
        self.step = make_step(model, self._optimizer, self._schedule, options, self.ballot, before_backward)
        torch.manual_seed(options.seed + group.rank)  # dropout and the like
        model.train()

    @property
    def lr(self) -> float:
        """Of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def state_dict(self) -> dict[str, Any]:
        """Live tensors: copy them before the next step."""
        return {
            "model": unwrap(self.model).state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.last_epoch,
            "generators": _generators(self.device),
        }

    def rank_state_dict(self) -> dict[str, Any]:
        """The part of `state_dict` that is this rank's alone: what differs from rank to rank. Live tensors."""
        return {"buffers": dict(unwrap(self.model).named_buffers()), "generators": _generators(self.device)}

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None:
        """After `load_state_dict` of what rank 0 saved."""
        buffers = dict(unwrap(self.model).named_buffers())
        for name, saved in state["buffers"].items():
            buffers[name].copy_(saved)
        _set_generators(state["generators"], self.device)

    def digest(self) -> str:
        """Of all parameters, bit by bit: equal on all ranks. Waits for the device."""
        digest = hashlib.sha256()
        for parameter in unwrap(self.model).parameters():
            digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def load_state_dict(self, state: Mapping[str, Any], *, draws_on: bool = True) -> None:
        """Before the first step. Raises what torch raises for a state of another model.

        Args:
            draws_on: go on with the generators of whoever saved this. A rank that did not would draw what that one
                draws.
        """
        rates = [(group, group["lr"], group["initial_lr"]) for group in self._optimizer.param_groups]
        unwrap(self.model).load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        for (_, rate, initial_rate), group in zip(rates, self._optimizer.param_groups, strict=True):
            if isinstance(rate, Tensor):  # to where the device reads it
                rate.copy_(group["lr"])
                group["lr"], group["initial_lr"] = rate, initial_rate
        now = {"last_epoch": state["schedule"], "_last_lr": [group["lr"] for group in self._optimizer.param_groups]}
        self._schedule.load_state_dict({**self._schedule.state_dict(), **now})
        if draws_on:
            _set_generators(state["generators"], self.device)


def _generators(device: torch.device) -> dict[str, Any]:
    """States of the generators that models, sources and losses of people's own may draw from."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _set_generators(state: Mapping[str, Any], device: torch.device) -> None:
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
