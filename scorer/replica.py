"""The resident weights: a copy of the model in this scorer's precision, of exactly one weights version."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import ProtocolError
from common.models import unwrap
from common.protocol import Weights
from common.scoring import Scored, score_candidates
from common.weights import Manifest, load_flat, manifest_of
from scorer.staging import StagedWeights


class Replica:
    """Owned by the main thread: versions change only between two calls of `score`.

    Args:
        model: on `device` from now on; its initial weights are never used for scoring.
        head: the last linear layer; computes in float32 whatever the precision (bfloat16 ties the top two classes).
        precision: see `common.scoring.score_candidates`; "float32" is exact.
    """

    def __init__(self, model: nn.Module, head: nn.Linear, device: torch.device, precision: str) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._head = head
        self._device = device
        self._precision = precision
        self._own = manifest_of(unwrap(model))

    def check_manifest(self, message: Weights) -> None:
        """Raise ProtocolError unless these weights fit the model. Any thread."""
        if message.manifest is not None:
            manifest = Manifest(message.manifest)
            manifest.check_matches(self._own)
            if message.total_bytes != manifest.total_bytes:
                raise ProtocolError(
                    f"weights: {message.total_bytes} bytes announced, their tensors take {manifest.total_bytes}"
                )

    def load(self, staged: StagedWeights) -> None:
        """Swap to a staged version, in place."""
        load_flat(self._model, Manifest(staged.manifest), torch.from_numpy(staged.flat))

    def score(
        self,
        inputs: Tensor,
        targets: Tensor,
        names: Sequence[str],
        embeddings: bool = False,
        precision: str | None = None,
    ) -> Scored:
        """All scores of one chunk in one forward pass; `inputs` as the source prepared them, on any device.

        Args:
            precision: another than the replica's own: float32, to judge that by.
        """
        return score_candidates(
            self._model,
            self._head,
            inputs.to(self._device),
            targets.to(self._device),
            names,
            precision=precision or self._precision,
            embeddings=embeddings,
        )
