"""From a CANDIDATES message to a chunk that may be trained on: what a scorer says is checked here."""

from collections.abc import Container

import torch

from common.arrays import as_tensor
from common.errors import ProtocolError
from common.protocol import Candidates, Lease, Version, Welcome
from trainer.pool import Payload, ScoredChunk
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
    scores = torch.from_numpy(message.finite_scores()[0].copy())
    return ScoredChunk(
        start=lease.start,
        stop=lease.stop,
        version=message.version,
        scores=scores,
        loss_mean=message.loss_mean,
        accuracy=message.accuracy,
        payload=_payload(message, terms),
    )


def _payload(message: Candidates, terms: Terms) -> Payload | None:
    """Tensors over the received frames, not copied; the frames live as long as the chunk."""
    if message.inputs is None or message.targets is None:
        return None
    for name, array, dtype, shape in (
        ("inputs", message.inputs, terms.sample_dtype, terms.sample_shape),
        ("targets", message.targets, "int64", terms.target_shape),
    ):
        if (array.dtype, array.shape[1:]) != (dtype, shape):
            raise ProtocolError(f"payload {name} are {array.dtype} {array.shape[1:]}, the data are {dtype} {shape}")
    rows = torch.arange(message.num)
    if message.rows is not None:
        rows = torch.from_numpy(message.rows.as_numpy().astype("int64"))
    return Payload(rows, as_tensor(message.inputs), as_tensor(message.targets))
