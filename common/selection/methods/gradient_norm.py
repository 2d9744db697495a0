"""Importance sampling by the gradient-norm bound, after Katharopoulos & Fleuret 2018, arXiv:1803.00942."""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.selection.method import Offer, Selection, Setting, earliest, tempered, unweighted
from common.selection.select import (
    importance_weights,
    proportional_probability,
    sample_with_replacement,
    variance_reduction_tau,
)


class GradientNorm:
    """Draws with replacement, p ∝ bound, weights 1/(B·p), while that pays; else a uniform batch.

    It pays while τ, the reduction of variance as a factor on the batch size, is above its threshold: by default
    (B + 3b)/(3b), where scoring B forward and training b costs as much as training a uniform batch that much larger.
    τ is an exponential moving average from 0 over the scored candidates.

    Both modes score at every step, so that they select alike; the published algorithm saves the scoring below the
    threshold and takes τ from the training pass there.
    """

    scores = ("gradient-norm",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        self._threshold: float | None = setting.parameters.get("tau_threshold")
        self._smoothing = float(setting.parameters.get("tau_smoothing", 0.9))
        self._temperature = float(setting.parameters.get("temperature") or 1.0)
        self._batch_size = setting.batch_size
        self._tau = torch.zeros((), dtype=torch.float64)

    def observe(self, offer: Offer) -> None:
        bounds_B = offer.scores["gradient-norm"]
        bounds_B = bounds_B[bounds_B.isfinite()]
        if len(bounds_B):
            tau = variance_reduction_tau(bounds_B)
            self._tau = self._smoothing * self._tau + (1 - self._smoothing) * float(tau)

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        bounds_B = offer.scores["gradient-norm"]
        num_available = int(bounds_B.isfinite().sum())
        threshold = self._threshold
        if threshold is None:  # of the whole step, also where a part of the batch was drawn otherwise
            threshold = (len(offer) + 3 * self._batch_size) / (3 * self._batch_size)
        if float(self._tau) <= threshold or num_available < num:
            return unweighted(earliest(offer, num), num)
        scores_B = tempered(bounds_B, self._temperature)
        indices_b = sample_with_replacement(scores_B, num, generator)
        probability_b = proportional_probability(scores_B)[indices_b]
        return Selection(indices_b, importance_weights(probability_b, num_available), 0, probability_b)

    def figures(self) -> dict[str, float]:
        return {"tau_smoothed": float(self._tau)}

    def state_dict(self) -> dict[str, Tensor]:
        return {"tau": self._tau.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._tau = state["tau"].clone()
