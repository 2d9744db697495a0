"""A module and inputs to all scores of one forward pass: scorers, fresh mode and audits run this same code.

B = candidates, C = classes, K = scores. Equal weights, inputs and thread counts give bitwise equal scores in every
process.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from common.errors import ConfigError
from common.models.check import evaluating
from common.models.loss import own_loss, per_sample_loss
from common.models.passes import casting_to, catching_inputs_of, computing_in
from common.scored import EXTREMES, Scored, scored_parts
from common.selection.fused import NEED_TARGETS, fused_scores
from common.selection.scores import check_logits, check_targets, minimal_margin_score

# Scores of (B, C) logits; "loss" is the model's, and the one that any output can have.
SCORES = ("mms", "loss", "entropy", "gradient-norm")
_FIGURES = ("loss", "correct", "gradient-norm")  # of which means are told beside the scores


def score_candidates(
    model: nn.Module,
    head: nn.Linear,
    inputs: Tensor,
    targets: Tensor,
    names: Sequence[str],
    *,
    precision: str = "float32",
    embeddings: bool = False,
    forward: Callable[[Tensor], Any] | None = None,
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
        forward: what computes the outputs instead of the model, such as a `common.precision` form of it; it calls
            `head` itself and sees to eval mode and to its own precision, so `precision` is not looked at.

    Raises:
        ConfigError: a name is unknown, or this model has no such score.
    """
    sizes = [len(targets)]
    return score_parts(
        model, head, inputs, targets, names, sizes, precision=precision, embeddings=embeddings, forward=forward
    )[0]


def score_parts(
    model: nn.Module,
    head: nn.Linear,
    inputs: Tensor,
    targets: Tensor,
    names: Sequence[str],
    sizes: Sequence[int],
    *,
    precision: str = "float32",
    embeddings: bool = False,
    forward: Callable[[Tensor], Any] | None = None,
    figures: bool = True,
) -> list[Scored]:
    """As `score_candidates` in one forward pass, but said of each part for itself.

    Args:
        sizes: candidates of each part, one part after the other; B together.
        figures: whether mean loss, accuracy and tau are wanted; without they are NaN, which is quicker.
    """
    if unknown := [name for name in names if name not in SCORES]:
        raise ConfigError(f"unknown score {unknown[0]!r}; available: {', '.join(SCORES)}")
    compute = forward
    if compute is None:
        compute = model.module if isinstance(model, DistributedDataParallel | DataParallel) else model  # no collectives
    with (
        _by_itself(model, head, precision) if forward is None else nullcontext(),
        catching_inputs_of(head, embeddings) as caught,
        torch.inference_mode(),
    ):
        outputs = compute(inputs)
        logits_BC = _logits(outputs, len(targets))
        _check_fit(names, model, head, logits_BC, targets)
        wanted = tuple(dict.fromkeys((*names, *EXTREMES, *(_FIGURES if figures else ()))))
        rows = _rows(wanted, model, head, outputs, logits_BC, targets)
        factors = _factors(model, logits_BC, targets, caught) if embeddings else (None, None)
    return scored_parts(names, rows, sizes, *factors)


@contextmanager
def _by_itself(model: nn.Module, head: nn.Linear, precision: str) -> Iterator[None]:
    """What a model needs around its forward pass, and a form of it settles for itself."""
    with evaluating(model), computing_in(precision, head), casting_to(head, model):
        yield


def _rows(
    names: Sequence[str],
    model: nn.Module,
    head: nn.Linear,
    outputs: Any,
    logits_BC: Tensor | None,
    targets: Tensor,
) -> dict[str, np.ndarray]:
    """(B,) float32 each, by name; NaN for a figure that there is not."""
    classes_B = targets.long() if targets.ndim == 1 and not targets.is_floating_point() else None
    rows: dict[str, np.ndarray] = {}
    if logits_BC is not None and logits_BC.shape[1] > 1:
        absent = frozenset() if classes_B is not None else NEED_TARGETS
        fused = [name for name in names if name not in absent and (name != "loss" or own_loss(model) is None)]
        weight_CD = head.weight if "mms" in names else None
        scores = fused_scores(fused, logits_BC, weight_CD=weight_CD, targets_B=classes_B)
        rows = {name: row_B.numpy() for name, row_B in scores.items()}
    elif logits_BC is not None:
        rows = dict.fromkeys(EXTREMES, _on_cpu(logits_BC[:, 0]))
        if "mms" in names:
            rows["mms"] = _on_cpu(minimal_margin_score(logits_BC, head.weight))
        if "correct" in names and classes_B is not None:
            rows["correct"] = _on_cpu((logits_BC[:, 0] > 0) == (classes_B > 0))
    if "loss" not in rows and ("loss" in names or logits_BC is None):
        with evaluating(model):
            rows["loss"] = _on_cpu(per_sample_loss(model, outputs, targets))
    if logits_BC is None:
        rows |= dict.fromkeys(EXTREMES, rows["loss"])
    if len(missing := [name for name in names if name not in rows]):
        rows |= dict.fromkeys(missing, np.full(len(targets), math.nan, dtype=np.float32))
    return {name: rows[name] for name in names}


def _on_cpu(values_B: Tensor) -> np.ndarray:
    return values_B.float().cpu().numpy()


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


def _check_fit(
    names: Sequence[str], model: nn.Module, head: nn.Linear, logits_BC: Tensor | None, targets: Tensor
) -> None:
    """Raise ConfigError for a score that these outputs do not have."""
    kind = type(model).__name__
    for name in names:
        if name == "loss":
            continue
        if logits_BC is None:
            raise ConfigError(
                f"method {name!r} needs (B, C) logits, which {kind} does not return; choose --method loss"
            )
        if name == "mms":
            if logits_BC.shape[1] != head.out_features:
                raise ConfigError(
                    f"method 'mms': {kind} returns {logits_BC.shape[1]} logits and the head has {head.out_features} "
                    "rows; name the layer that makes the logits with --head, or choose --method loss"
                )
            continue
        try:
            check_logits(logits_BC, least_classes=2)
            if name in NEED_TARGETS:
                check_targets(targets, logits_BC)
        except ValueError as error:
            raise ConfigError(f"method {name!r} does not fit {kind}: {error}; choose --method loss") from error


def _logits(outputs: object, num: int) -> Tensor | None:
    """The outputs where they are (B, C) floats, else None."""
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        return None
    return outputs if outputs.ndim == 2 and len(outputs) == num and outputs.shape[1] > 0 else None
