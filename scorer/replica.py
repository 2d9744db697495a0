"""The resident weights: the model, at exactly one weights version, and its form in this scorer's precision."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.config.shared import RECALIBRATE_EVERY
from common.data.normal import Normal
from common.errors import ProtocolError
from common.models import unwrap
from common.precision.calibration import Calibration
from common.precision.forms import make_form
from common.protocol import Weights
from common.scored import Scored
from common.scoring import score_parts
from common.weights import FlatLoader, Manifest, manifest_of
from scorer.landing import Landing
from scorer.staging import StagedWeights


class Replica:
    """Owned by the main thread: versions change only between two calls of `score`.

    The model is the master, in float32; the form that scores follows it with each version.

    Args:
        model: on `device` from now on; its initial weights are never used for scoring.
        head: the last linear layer; computes in float32 whatever the precision (bfloat16 ties the top two classes).
        precision: see `common.precision.forms.make_form`; "float32" is exact.
        compile: see there.
        recalibrate_every: see `common.precision.calibration.Calibration`.
        normal: of images in bytes, see `make_form`.

    Raises:
        ConfigError: see `make_form`.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Linear,
        device: torch.device,
        precision: str,
        *,
        compile: bool = False,
        recalibrate_every: int = RECALIBRATE_EVERY,
        normal: Normal | None = None,
    ) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._head = head
        self._device = device
        self._own = manifest_of(unwrap(model))
        self._checked: tuple[object, int] | None = None  # versions differ in their bytes alone, mostly
        self._landing: Landing | None = None
        self._loader = FlatLoader(self._model)
        self.form = make_form(model, head, precision, compile=compile, normal=normal)
        self._calibration = Calibration(self.form, recalibrate_every)

    def check_manifest(self, message: Weights) -> Landing | None:
        """Raise ProtocolError unless these weights fit the model; where they land. The I/O thread."""
        if message.manifest is not None and (message.manifest, message.total_bytes) != self._checked:
            manifest = Manifest(message.manifest)
            manifest.check_matches(self._own)
            if message.total_bytes != manifest.total_bytes:
                raise ProtocolError(
                    f"weights: {message.total_bytes} bytes announced, their tensors take {manifest.total_bytes}"
                )
            self._checked = message.manifest, message.total_bytes
            self._landing = Landing.between(manifest, self._own) if self._loader.can_move else None
        return self._landing

    def begin(self) -> None:
        """Another session, maybe of another trainer with other weights: calibrated anew."""
        self._calibration.begin()

    def load(self, staged: StagedWeights) -> None:
        """Swap to a staged version; what `staged` holds afterwards is free to be filled again."""
        staged.flat = self._loader.swap(staged.manifest, torch.from_numpy(staged.flat)).numpy()
        self.form.refresh()
        self._calibration.weights_changed()

    def score(
        self,
        inputs: Tensor,
        targets: Tensor,
        names: Sequence[str],
        embeddings: bool = False,
        exact: bool = False,
    ) -> Scored:
        """All scores of one chunk; see `score_parts`."""
        return self.score_parts(inputs, targets, names, [len(targets)], embeddings, exact)[0]

    def score_parts(
        self,
        inputs: Tensor,
        targets: Tensor,
        names: Sequence[str],
        sizes: Sequence[int],
        embeddings: bool = False,
        exact: bool = False,
        figures: bool = True,
    ) -> list[Scored]:
        """All scores of some chunks in one forward pass; `inputs` as the source prepared them, on any device.

        Args:
            sizes: of the chunks, one after the other.
            exact: by the master, in float32: to judge the form by.
            figures: see `common.scoring.score_parts`.
        """
        inputs, targets = inputs.to(self._device), targets.to(self._device)
        if not exact:
            self._calibration.before(inputs)
        forward = None if exact or self.form.precision == "float32" else self.form
        return score_parts(
            self._model,
            self._head,
            inputs,
            targets,
            names,
            sizes,
            embeddings=embeddings,
            forward=forward,
            figures=figures,
        )
