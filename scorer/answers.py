"""What every scorer with data does the same way: the answer to a lease."""

import math

import torch
from torch import Tensor

from common.arrays import as_array
from common.data.reader import Samples
from common.protocol import Array, Candidates, Lease, Version, Welcome, pack_mask
from common.scored import Scored
from common.selection.select import highest, lowest


def make_answer(
    lease: Lease,
    welcome: Welcome,
    version: Version,
    samples: Samples,
    scored: Scored,
    *,
    read_s: float,
    score_s: float,
    exact: Scored | None = None,
) -> Candidates:
    """The answer to a lease: scores, and what else the welcome asks for.

    Args:
        version: the stamp, as it was when the forward pass started.
        samples, scored: of the lease's positions, in their order.
        exact: the same scores from a float32 forward pass, for an audit.
    """
    rows, inputs, targets = (None, None, None) if lease.is_audit else _payload(samples, scored, welcome)
    dropped = scored.dropped if exact is None else scored.dropped | exact.dropped
    return Candidates(
        lease=lease.lease,
        version=version,
        num=scored.num,
        dropped=pack_mask(dropped.numpy()) if dropped.any() else b"",
        scores=_arrays(scored, welcome),
        exact_scores=() if exact is None else _arrays(exact, welcome),
        loss_mean=_finite(scored.loss_mean),
        accuracy=_finite(scored.accuracy),
        tau=_finite(scored.tau),
        errors=_embedding(None if lease.is_audit else scored.errors, scored.dropped),
        features=_embedding(None if lease.is_audit else scored.features, scored.dropped),
        read_s=read_s,
        score_s=score_s,
        rows=rows,
        inputs=inputs,
        targets=targets,
    )


def _arrays(scored: Scored, welcome: Welcome) -> tuple[Array, ...]:
    own = (scored.scores[name] for name in welcome.scores)
    return tuple(as_array(torch.nan_to_num(scores_B) if scored.dropped.any() else scores_B) for scores_B in own)


def _embedding(rows: Tensor | None, dropped: Tensor) -> Array | None:
    return None if rows is None else as_array(rows.masked_fill(dropped[:, None], 0.0))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _payload(samples: Samples, scored: Scored, welcome: Welcome) -> tuple[Array | None, Array | None, Array | None]:
    """Tensors to ship: none by reference, every candidate, or the hardest `best_k` by the first score."""
    if welcome.transfer == "reference":
        return None, None, None
    if welcome.best_k is None:
        return None, as_array(samples.inputs.cpu()), as_array(samples.targets)
    scores = torch.where(scored.dropped, float("nan"), scored.scores[welcome.scores[0]])
    rows = (lowest if welcome.lowest_is_hard else highest)(scores, welcome.best_k)
    inputs = samples.inputs[rows.to(samples.inputs.device)].cpu()
    return as_array(rows.int()), as_array(inputs), as_array(samples.targets[rows])
