"""Optimisers, learning-rate schedules counted in steps, and gradient clipping, from the trainer's options."""

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from common.config import LearningOptions
from common.config.training import ScheduleOptions

logger = logging.getLogger(__name__)

FUSED_DEVICES = ("cpu", "cuda")


def build_optimizer(options: LearningOptions, params: Iterable[nn.Parameter], *, capturable: bool = False) -> Optimizer:
    """`--optimizer` at its peak rate `--lr`. Parameters that need no gradient are left out.

    Weight decay is added to the gradient for sgd and adam, and decoupled for adamw (Loshchilov & Hutter 2019,
    arXiv:1711.05101); it applies to every parameter, as in the papers of the residual nets.

    Args:
        capturable: all that changes from step to step, the rate included, is a tensor on the parameters' device, so
            that a CUDA graph sees it change.
    """
    trained = [param for param in params if param.requires_grad]
    weight_decay = options.optim.weight_decay
    lr: float | Tensor = options.lr
    if capturable and trained:
        lr = torch.tensor(options.lr, device=trained[0].device)
    # One kernel for all parameters: on one core, a third of the time that a loop over those of a small model takes.
    fused = all(param.device.type in FUSED_DEVICES and param.is_floating_point() for param in trained)
    if options.optimizer == "sgd":
        momentum, nesterov = options.optim.momentum, options.optim.nesterov
        sgd = SGD(trained, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
        if fused and momentum:
            _begin_momentum(sgd)
        return sgd
    if options.optimizer == "adam":
        return Adam(trained, lr, weight_decay=weight_decay, fused=fused, capturable=capturable)
    assert options.optimizer == "adamw", f"unknown optimiser {options.optimizer!r}"
    return AdamW(trained, lr, weight_decay=weight_decay, fused=fused, capturable=capturable)


def _begin_momentum(optimizer: SGD) -> None:
    """Give each parameter its momentum, 0, before the first step, which then is what it would be without.

    By itself SGD makes it at a parameter's first gradient, and its fused kernel cannot step where some have theirs and
    others do not: parameters that not every batch gives a gradient.
    """
    for group in optimizer.param_groups:
        for param in group["params"]:
            optimizer.state[param]["momentum_buffer"] = torch.zeros_like(param)


def build_schedule(optimizer: Optimizer, options: LearningOptions, steps: int | None = None) -> LambdaLR:
    """The rate of each step as a multiple of `--lr`; call `.step()` once after every optimiser step.

    | name | multiple while s steps are completed, of S |
    |---|---|
    | constant | 1 |
    | step | gamma ^ (number of milestones <= s); milestones are steps, or shares of S |
    | linear | 1 - s / S |
    | cosine | (1 + cos(pi s / S)) / 2, after Loshchilov & Hutter 2017, arXiv:1608.03983 |

    linear and cosine end at 0 with the last step and stay there. `state_dict` holds the number of steps: a resumed run
    goes on where it was.

    Args:
        steps: S, of the whole run; `options.steps` by default.
    """
    total = options.steps if steps is None else steps
    schedule = options.schedule
    if schedule.name == "step" and schedule.milestones and schedule.milestones[-1] >= total:
        shown = " ".join(map(str, schedule.milestones))
        logger.warning("the run ends at step %d, before the last of --schedule.milestones %s", total, shown)
    return LambdaLR(optimizer, _multiple(schedule, total))


def clip_gradients(params: Iterable[nn.Parameter], clip_norm: float | None) -> Tensor | None:
    """Scale all gradients by one factor so that their joint norm is at most `clip_norm`; None leaves them.

    Returns:
        The norm before clipping, () float32 on the gradients' device and not waited for; None without clipping.
    """
    if clip_norm is None:
        return None
    return torch.nn.utils.clip_grad_norm_(params, clip_norm)


def _multiple(schedule: ScheduleOptions, steps: int) -> Callable[[int], float]:
    if schedule.name == "step":
        milestones = schedule.resolved_milestones(steps)
        return lambda step: schedule.gamma ** bisect_right(milestones, step)
    if schedule.name == "linear":
        return lambda step: 1 - min(step / steps, 1)
    if schedule.name == "cosine":
        return lambda step: (1 + math.cos(math.pi * min(step / steps, 1))) / 2
    return lambda step: 1.0
