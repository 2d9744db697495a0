"""Selective-Backprop, after Jiang et al. 2019, arXiv:1910.00762. H = length of the history."""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.selection.method import Offer, Selection, Setting
from common.selection.select import coins, never_all_zero, percentile_probability


class SelectiveBackprop:
    """A coin for each candidate with p = (share of the history strictly below its loss)^β, unweighted.

    The history holds the last `history` losses, the candidates' own among them. The first epoch trains on everything.
    Where p is 0 for all, as for losses that are all equal, each candidate passes with 1/(β + 1), the mean share that β
    keeps. The stale variant is the same on losses of which some are remembered.
    """

    scores = ("loss",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        self._beta = float(setting.parameters.get("beta", 1.0))
        self._size = int(setting.parameters.get("history", 1024))
        self._history_H = torch.empty(0)

    def observe(self, offer: Offer) -> None:
        losses_B = offer.scores["loss"]
        self._history_H = torch.cat([self._history_H, losses_B[losses_B.isfinite()]])[-self._size :]

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        losses_B = offer.scores["loss"]
        if offer.epoch == 0:
            probability_B = losses_B.isfinite().float()
        else:
            probability_B = percentile_probability(losses_B, self._history_H, self._beta)
            probability_B = never_all_zero(probability_B, losses_B, 1 / (self._beta + 1))
        indices = coins(probability_B, generator).nonzero()[:, 0]
        return Selection(indices, torch.ones(len(indices)), 0, probability_B[indices])

    def figures(self) -> dict[str, float]:
        return {"history_loss_mean": float(self._history_H.mean())} if len(self._history_H) else {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"history": self._history_H.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._history_H = state["history"].clone()
