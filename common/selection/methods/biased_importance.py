"""Biased importance sampling, after Katharopoulos & Fleuret 2017, arXiv:1706.00043."""

import torch

from common.selection.method import Offer, Selection, Setting, Stateless, tempered, unweighted
from common.selection.select import biased_weights, proportional_probability, sample_with_replacement

FLOOR = 1e-6  # of predictions, which a small network may put below zero; `biased_weights` has the same


class BiasedImportance(Stateless):
    """Draws with replacement, p ∝ predicted loss, and weighs by w^k: k = 1 is unbiased, 0 is unweighted.

    No forward pass of the model is needed to score: a small recurrent network predicts each loss from the last ten.
    """

    scores = ("predicted-loss",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        self._bias_power = float(setting.parameters.get("bias_power", 0.5))
        self._temperature = float(setting.parameters.get("temperature") or 1.0)

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        predicted_B = offer.scores["predicted-loss"]
        finite_B = predicted_B.isfinite()
        scores_B = torch.where(finite_B, tempered(predicted_B.clamp(min=FLOOR), self._temperature), torch.nan)
        scores_B = scores_B.clamp(min=FLOOR)  # the weights see them floored, so the probabilities have to
        rows = finite_B.nonzero()[:, 0]
        if len(rows) < num:
            return unweighted(rows, num)
        indices_b = sample_with_replacement(scores_B, num, generator)
        weights_b = biased_weights(scores_B, indices_b, self._bias_power)
        return Selection(indices_b, weights_b, 0, proportional_probability(scores_B)[indices_b])
