"""What a selection method is. B = candidates offered, b = selected, C = classes, D = features, N = samples.

    trainer ── Offer ──► observe: what is seen of each candidate, once
                    └──► select: which of them to train on, with which weights

A method owns its state and nothing else: no clocks, files or global randomness. Everything that it draws comes from the
generator that it is given, so equal offers and equal state give equal selections.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Offer:
    """Candidates that a method may choose from; all tensors on the CPU. For a planned method: all samples, by id.

    Attributes:
        scores: (B,) float32 by score name, of the scores that the method asks for; NaN marks a dropped candidate.
        ids: (B,) int64 sample ids.
        epoch: position // N of the first candidate.
        progress: steps completed over steps of the run, in [0, 1).
        targets: (B,) int64 class labels, for those who need them.
        errors, features: (B, C) and (B, D) float16, the factors of the last layer's gradients, likewise.
        taken: (B,) bool: not to be chosen; None if all may be. A planned method, to which NaN means an unknown loss,
            learns of it here alone; for the others such candidates are dropped as well.
    """

    scores: Mapping[str, Tensor]
    ids: Tensor
    epoch: int = 0
    progress: float = 0.0
    targets: Tensor | None = None
    errors: Tensor | None = None
    features: Tensor | None = None
    taken: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, taken_B: Tensor) -> "Offer":
        """The same candidates with some of them dropped: `taken_B` (B,) bool."""
        dropped = {name: row.masked_fill(taken_B, torch.nan) for name, row in self.scores.items()}
        return replace(self, scores=dropped, taken=taken_B if self.taken is None else self.taken | taken_B)

    @property
    def available(self) -> Tensor:
        """(B,) bool: candidates that are not taken and of which every score is finite."""
        available_B = torch.ones(len(self), dtype=torch.bool) if self.taken is None else ~self.taken
        for row in self.scores.values():
            available_B &= row.isfinite()
        return available_B


@dataclass(frozen=True)
class Selection:
    """The candidates chosen; the loss is mean(weights · losses).

    Attributes:
        indices: (b,) int64 into the offer; a sampling method may repeat some, until `collapsed`.
        weights: (b,) float32, >= 0.
        num_missing: how many fewer candidates could be chosen than were asked for.
        probability: (b,) float32, with which each was drawn; None where nothing was left to chance.
    """

    indices: Tensor
    weights: Tensor
    num_missing: int = 0
    probability: Tensor | None = None


class Method(Protocol):
    """One way to select. `scores[0]` is what the ledger calls the score and `--payload best:K` sorts by.

    Attributes:
        scores: names of the scores that an offer must hold, keys of `common.scoring.SCORES`.
        lowest_is_hard: which end of the first score is hard.
    """

    scores: tuple[str, ...]
    lowest_is_hard: bool

    def observe(self, offer: Offer) -> None:
        """Learn from candidates, each of which is shown once, before it is chosen from."""

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        """Choose `num` candidates, or fewer if fewer are available; a stream method chooses as many as it likes.

        Never changes what `observe` learned: the rest of an offer may be chosen from again.
        """

    def figures(self) -> dict[str, float]:
        """What its state amounts to, for the curves, by name."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next selection depends on, as tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state_dict`."""


@dataclass(frozen=True)
class Setting:
    """What a method is told when it is made.

    Attributes:
        num_samples: N.
        batch_size: b.
        steps: of the whole run.
        parameters: values of the options that its entry lists.
        irreducible: (N,) float32 irreducible losses by id, for rho-loss.
    """

    num_samples: int
    num_classes: int
    batch_size: int
    steps: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    irreducible: Tensor | None = None


class Stateless:
    """The part of a method that has nothing to learn and nothing to tell."""

    def observe(self, offer: Offer) -> None:
        pass

    def figures(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


def unweighted(indices_b: Tensor, num: int, probability_b: Tensor | None = None) -> Selection:
    """A selection in which every sample counts the same, of `num` that were asked for."""
    weights_b = torch.ones(len(indices_b), dtype=torch.float32)
    return Selection(indices_b, weights_b, max(0, num - len(indices_b)), probability_b)


def tempered(scores_B: Tensor, temperature: float) -> Tensor:
    """s^(1/T) as multiples of the largest, so that none overflows; for T = 1 the scores themselves.

    Args:
        scores_B: (B,) float32, >= 0 where finite.
        temperature: T > 0.

    Returns:
        (B,) of float32 or float64; not finite where the score is not.
    """
    if temperature == 1:
        return scores_B
    finite_B = scores_B.isfinite()
    largest = torch.where(finite_B, scores_B, 0.0).amax() if len(scores_B) else scores_B.new_ones(())
    shares_B = scores_B.double() / torch.where(largest > 0, largest, 1.0)
    return torch.where(finite_B, shares_B ** (1 / temperature), torch.nan)


def earliest(offer: Offer, num: int) -> Tensor:
    """Indices of the first available candidates: in a keyed random order, a uniform draw without replacement."""
    return offer.available.nonzero()[:num, 0]
