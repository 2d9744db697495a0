"""From a CANDIDATES message to a chunk that may be trained on: what a scorer says is checked here."""

import math
from collections.abc import Container

import numpy as np
import torch
from torch import Tensor

from common.arrays import as_tensor
from common.errors import ProtocolError
from common.protocol import Array, Candidates, Lease, Version, Welcome, unpack_mask
from trainer.chunks import Payload, ScoredChunk
from trainer.terms import Terms


def scored_chunk(
    message: Candidates, lease: Lease, welcome: Welcome, terms: Terms, announced: Container[Version]
) -> ScoredChunk:
    """The chunk that a message holds.

    Args:
        lease: what was asked for; welcome: what was agreed with this scorer; terms: the run's.
        announced: the versions that scorers may have.

    Raises:
        ProtocolError: the message does not answer the lease, or its version or tensors are not possible.
    """
    message.check(lease, welcome)
    if message.version not in announced:
        raise ProtocolError(f"candidates of version {tuple(message.version)}, which was never announced")
    if message.version.step < lease.oldest_step:
        raise ProtocolError(
            f"candidates of step {message.version.step}, older than their lease allows ({lease.oldest_step})"
        )
    if message.errors is not None and message.features is not None:
        sizes = message.errors.shape[1], message.features.shape[1]
        if sizes != terms.embedding_sizes:
            raise ProtocolError(f"errors and features have {sizes} columns, the head has {terms.embedding_sizes}")
    scores = dict(zip(welcome.scores, message.finite_scores(), strict=True))
    _check_not_negative(scores, terms)
    _check_not_negative(dict(zip(welcome.scores, message.finite_exact_scores(), strict=False)), terms)
    wanted = unpack_mask(lease.mask, lease.stop - lease.start) if lease.mask else None
    return ScoredChunk(
        start=lease.start,
        stop=lease.stop,
        version=message.version,
        scores={name: torch.from_numpy(_spread(row, wanted)) for name, row in scores.items()},
        wanted=wanted,
        loss_mean=message.loss_mean,
        accuracy=message.accuracy,
        tau=message.tau,
        errors=_spread_rows(message.errors, wanted),
        features=_spread_rows(message.features, wanted),
        payload=_payload(message, terms, wanted),
    )


def _check_not_negative(scores: dict[str, np.ndarray], terms: Terms) -> None:
    """Selection raises ValueError for what no forward pass gives: a distance, a loss or an entropy below 0."""
    for name in terms.not_negative:
        if name in scores and (least := float(np.fmin.reduce(scores[name], initial=0.0))) < 0:
            raise ProtocolError(f"scores {name} are at least 0, got {least:g}")


def _spread(row: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
    """A copy of (m,) values at the m wanted of n places, NaN at the others."""
    if wanted is None:
        return row.copy()
    spread = np.full(len(wanted), np.nan, dtype=np.float32)
    spread[wanted] = row
    return spread


def _spread_rows(array: Array | None, wanted: np.ndarray | None) -> Tensor | None:
    """(m, D) rows at the wanted places, zeros at the others; without a mask over the received frame, not copied."""
    if array is None:
        return None
    rows = as_tensor(array)
    if wanted is None:
        return rows
    spread = torch.zeros(len(wanted), *rows.shape[1:], dtype=rows.dtype)
    spread[torch.from_numpy(wanted)] = rows
    return spread


def _check_payload(message: Candidates, inputs: Array, targets: Array, terms: Terms) -> None:
    """Raises ProtocolError for samples that end a training step: no such class, or no numbers."""
    classes = targets.as_numpy()
    if classes.size and not 0 <= classes.min() <= classes.max() < terms.num_classes:
        raise ProtocolError(
            f"payload targets must be in [0, {terms.num_classes}), got {classes.min()} to {classes.max()}"
        )
    if inputs.dtype in ("float16", "float32", "float64"):
        rows = inputs.as_numpy().reshape(inputs.shape[0], math.prod(inputs.shape[1:]))
        kept = ~message.dropped_flags() if message.rows is None else np.True_  # a broken sample has no score either
        wrong = int((kept & ~np.isfinite(rows).all(axis=1)).sum())
        if wrong:
            raise ProtocolError(f"{wrong} payload inputs are not finite and not listed as dropped")


def _payload(message: Candidates, terms: Terms, wanted: np.ndarray | None) -> Payload | None:
    """Tensors over the received frames, not copied; the frames live as long as the chunk."""
    if message.inputs is None or message.targets is None:
        return None
    for name, array, dtype, shape in (
        ("inputs", message.inputs, terms.sample_dtype, terms.sample_shape),
        ("targets", message.targets, "int64", terms.target_shape),
    ):
        if (array.dtype, array.shape[1:]) != (dtype, shape):
            raise ProtocolError(f"payload {name} are {array.dtype} {array.shape[1:]}, the data are {dtype} {shape}")
    _check_payload(message, message.inputs, message.targets, terms)
    rows = torch.arange(message.num)
    if message.rows is not None:
        rows = torch.from_numpy(message.rows.as_numpy().astype("int64"))
    if wanted is not None:
        rows = torch.from_numpy(np.flatnonzero(wanted))[rows]
    return Payload(rows, as_tensor(message.inputs), as_tensor(message.targets))
