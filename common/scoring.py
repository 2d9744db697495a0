"""A module and inputs to all scores of one forward pass: scorers, fresh mode and audits run this same code.

B = candidates, C = classes, K = scores. Equal weights, inputs and thread counts give bitwise equal scores in every
process.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from common.errors import ConfigError
from common.models.check import evaluating
from common.models.loss import per_sample_loss
from common.selection.scores import entropy_score, gradient_norm_bound, minimal_margin_score
from common.selection.select import variance_reduction_tau

Score = Callable[[nn.Linear, Tensor, Tensor], Tensor]

# Scores of (B, C) logits by name; "loss" is the model's, and the one that any output can have.
SCORES: dict[str, Score | None] = {
    "mms": lambda head, logits_BC, targets_B: minimal_margin_score(logits_BC, head.weight, head.bias),
    "loss": None,
    "entropy": lambda head, logits_BC, targets_B: entropy_score(logits_BC),
    "gradient-norm": lambda head, logits_BC, targets_B: gradient_norm_bound(logits_BC, targets_B),
}


@dataclass(frozen=True)
class Scored:
    """What one forward pass says about a batch of candidates.

    Attributes:
        scores: name to (B,) float32 on the CPU; NaN exactly where `dropped`.
        dropped: (B,) bool on the CPU: a logit or a wanted score was not finite. Never selected.
        loss_mean: of the candidates whose loss is finite and that were not dropped; NaN without any. Candidates are
            uniform, so this is an unbiased estimate of the loss over the data.
        accuracy: of the candidates not dropped, in [0, 1]; NaN without any, or where targets are not class indices.
        tau: `variance_reduction_tau` of the gradient-norm bounds of the candidates not dropped; NaN where there is no
            such bound.
        num: B.
        errors, features: (B, C) softmax - onehot and (B, D) inputs of the head, float16 on the CPU, if asked for.
    """

    scores: dict[str, Tensor]
    dropped: Tensor
    loss_mean: float
    accuracy: float
    tau: float
    num: int
    errors: Tensor | None = None
    features: Tensor | None = None


def score_candidates(
    model: nn.Module,
    head: nn.Linear,
    inputs: Tensor,
    targets: Tensor,
    names: Sequence[str],
    *,
    precision: str = "float32",
    embeddings: bool = False,
) -> Scored:
    """Score candidates with the weights that the model holds now; the model is left as it was.

    The forward pass runs in eval mode (BatchNorm statistics stay) and in inference mode; every module then gets its own
    training flag back. Features are cast to the head's dtype: a model in bf16 keeps its head in float32, since bf16
    ties the top two classes. Waits for the device, once.

    Args:
        model: anything whose outputs `common.models.loss.per_sample_loss` takes; on one device.
        head: its last linear layer, whose rows belong to the logits.
        inputs: (B, ...) on the model's device, prepared, in the dtype that the model's first layer takes.
        targets: (B, ...) on the same device.
        names: the scores wanted, keys of SCORES.
        precision: "float32" computes as the model is; "bf16" runs all but the head in bfloat16 by autocast.
        embeddings: also give the factors of the last layer's gradients.

    Raises:
        ConfigError: a name is unknown, or this model has no such score.
    """
    if unknown := [name for name in names if name not in SCORES]:
        raise ConfigError(f"unknown score {unknown[0]!r}; available: {', '.join(SCORES)}")
    forward = model.module if isinstance(model, DistributedDataParallel | DataParallel) else model  # no collectives
    with (
        evaluating(model),
        _computing_in(precision, head),
        _casting_to(head, model),
        _catching_inputs_of(head, embeddings) as caught,
        torch.inference_mode(),
    ):
        outputs = forward(inputs)
        logits_BC = _logits(outputs, len(targets))
        losses_B = per_sample_loss(model, outputs, targets)
        rows = [_score(name, model, head, logits_BC, losses_B, targets) for name in names]
        correct_B = _correct(logits_BC, targets)
        bounds_B = _bounds(logits_BC, targets)
        # Smallest and largest show every NaN and infinity without a (B, C) mask.
        extremes = [losses_B] if logits_BC is None else [*logits_BC.float().aminmax(dim=1)]
        factors = _factors(model, logits_BC, targets, caught) if embeddings else (None, None)
    table_KB = torch.stack([*rows, *extremes, losses_B, correct_B, bounds_B]).cpu()  # in one transfer; normal from here

    num_kept_rows = len(rows) + len(extremes)
    dropped_B = ~table_KB[:num_kept_rows].isfinite().all(dim=0)
    losses_B, correct_B, bounds_B = table_KB[-3:]
    return Scored(
        scores={name: row.masked_fill(dropped_B, math.nan) for name, row in zip(names, table_KB, strict=False)},
        dropped=dropped_B,
        loss_mean=float(losses_B[~dropped_B & losses_B.isfinite()].double().mean()),
        accuracy=float(correct_B[~dropped_B].double().mean()),
        tau=_tau(bounds_B[~dropped_B]),
        num=len(targets),
        errors=factors[0],
        features=factors[1],
    )


def _bounds(logits_BC: Tensor | None, targets: Tensor) -> Tensor:
    """(B,) gradient-norm bounds; NaN where outputs are no logits of one class each."""
    if logits_BC is None or logits_BC.shape[1] < 2 or targets.ndim != 1 or targets.is_floating_point():
        return torch.full(targets.shape[:1], math.nan, device=targets.device)
    return gradient_norm_bound(logits_BC, targets)


def _tau(bounds_B: Tensor) -> float:
    return variance_reduction_tau(bounds_B) if len(bounds_B) and bool(bounds_B.isfinite().all()) else math.nan


def _factors(
    model: nn.Module, logits_BC: Tensor | None, targets: Tensor, caught: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """(B, C) p - y and (B, D) features, whose outer products are the gradients of the last layer's weight."""
    if logits_BC is None or logits_BC.shape[1] < 2 or targets.ndim != 1 or len(caught) != 1 or caught[0].ndim != 2:
        kind = type(model).__name__
        raise ConfigError(
            f"this method needs (B, C) logits out of one pass through the head, which {kind} does not give; "
            "choose --method loss"
        )
    errors_BC = F.softmax(logits_BC.float(), dim=1)
    errors_BC[torch.arange(len(targets), device=targets.device), targets] -= 1
    half = torch.finfo(torch.float16)
    features_BD = caught[0].float().clamp(half.min, half.max)
    return errors_BC.half().cpu(), features_BD.half().cpu()


def _score(
    name: str, model: nn.Module, head: nn.Linear, logits_BC: Tensor | None, losses_B: Tensor, targets: Tensor
) -> Tensor:
    score = SCORES[name]
    if score is None:
        return losses_B
    kind = type(model).__name__
    if logits_BC is None:
        raise ConfigError(f"method {name!r} needs (B, C) logits, which {kind} does not return; choose --method loss")
    if name == "mms" and logits_BC.shape[1] != head.out_features:
        raise ConfigError(
            f"method 'mms': {kind} returns {logits_BC.shape[1]} logits and the head has {head.out_features} rows; "
            "name the layer that makes the logits with --head, or choose --method loss"
        )
    try:
        return score(head, logits_BC, targets)
    except ValueError as error:
        raise ConfigError(f"method {name!r} does not fit {kind}: {error}; choose --method loss") from error


def _logits(outputs: object, num: int) -> Tensor | None:
    """The outputs where they are (B, C) floats, else None."""
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        return None
    return outputs if outputs.ndim == 2 and len(outputs) == num and outputs.shape[1] > 0 else None


def _correct(logits_BC: Tensor | None, targets: Tensor) -> Tensor:
    """(B,) float32: 1 where the predicted class is the target, 0 where not, NaN where targets are not classes."""
    if logits_BC is None or targets.ndim != 1 or targets.is_floating_point():
        return torch.full(targets.shape[:1], math.nan, device=targets.device)
    if logits_BC.shape[1] == 1:
        return ((logits_BC[:, 0] > 0) == (targets > 0)).float()
    return (logits_BC.argmax(dim=1) == targets).float()


@contextmanager
def _catching_inputs_of(head: nn.Linear, wanted: bool) -> Iterator[list[Tensor]]:
    """A list to which the head's inputs are appended, for what runs inside."""
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, args: caught.append(args[0])) if wanted else None
    try:
        yield caught
    finally:
        if hook is not None:
            hook.remove()


@contextmanager
def _computing_in(precision: str, head: nn.Linear) -> Iterator[None]:
    """Autocast for a low precision, with a head that steps out of it."""
    if precision == "float32":
        yield
        return
    device, forward = head.weight.device.type, head.forward
    is_own = "forward" in head.__dict__
    head.forward = lambda features: _without_autocast(forward, features.to(head.weight.dtype))  # type: ignore[method-assign,assignment]
    try:
        with torch.autocast(device, torch.bfloat16):
            yield
    finally:
        if is_own:
            head.forward = forward  # type: ignore[method-assign]
        else:
            del head.forward


def _without_autocast(forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return forward(features)


@contextmanager
def _casting_to(head: nn.Linear, model: nn.Module) -> Iterator[None]:
    """Inputs of the head in its own dtype; a hook only where some other parameter has a different one."""
    dtype = head.weight.dtype
    if all(parameter.dtype == dtype for parameter in model.parameters()):
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: tuple(value.to(dtype) for value in args))
    try:
        yield
    finally:
        hook.remove()
