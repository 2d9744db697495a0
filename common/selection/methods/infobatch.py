"""Unbiased pruning, after Qin et al. 2024 (InfoBatch), arXiv:2303.04947. N = samples of the data set."""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.selection.method import Offer, Selection, Setting
from common.selection.select import soft_prune

UNKNOWN_LOSS = 3.0


class InfoBatch:
    """Epochs without a random share of the samples whose last loss is below the mean; those kept weigh more.

    A sample below the mean stays with probability `keep` and then weighs 1/keep. From the share `full_from` of the run
    on, nothing is pruned and every weight is 1, whatever epoch had begun. No scores are needed: the losses are those
    of the training passes, 3 before the first.
    """

    scores = ("loss",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        self._keep = float(setting.parameters.get("keep", 0.5))
        self._full_from = float(setting.parameters.get("full_from", 0.875))
        self._ids = torch.empty(0, dtype=torch.int64)  # left of this epoch, shuffled
        self._weights = torch.empty(0)
        self._is_full = False
        self._kept_fraction = 1.0

    def observe(self, offer: Offer) -> None:
        pass

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        if offer.progress >= self._full_from and not self._is_full:
            self._is_full = True
            self._weights = torch.ones_like(self._weights)
        indices_b, weights_b = self._next(num, offer.taken)
        while len(indices_b) < num and len(offer):
            self._begin_epoch(offer, generator)
            more, weights = self._next(num - len(indices_b), offer.taken)
            if len(more) == 0:  # all that this epoch kept is taken
                break
            indices_b, weights_b = torch.cat([indices_b, more]), torch.cat([weights_b, weights])
        return Selection(indices_b, weights_b, num - len(indices_b), 1 / weights_b)

    def _next(self, num: int, taken_N: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next ids of this epoch and their weights; those that are taken are passed over, and gone."""
        places = torch.arange(min(num, len(self._ids)))
        if taken_N is not None:
            places = (~taken_N[self._ids]).nonzero()[:num, 0]
        end = len(self._ids) if len(places) < num else int(places[-1]) + 1 if num else 0
        indices, weights = self._ids[places], self._weights[places]
        self._ids, self._weights = self._ids[end:], self._weights[end:]
        return indices, weights

    def _begin_epoch(self, offer: Offer, generator: torch.Generator) -> None:
        losses_N = offer.scores["loss"]
        losses_N = torch.where(losses_N.isfinite(), losses_N, UNKNOWN_LOSS)
        if self._is_full:
            kept, weights = torch.arange(len(offer)), torch.ones(len(offer))
        else:
            kept, weights = soft_prune(losses_N, self._keep, generator)
        order = torch.randperm(len(kept), generator=generator)
        self._kept_fraction = len(kept) / len(offer)
        self._ids, self._weights = kept[order], weights[order]

    def figures(self) -> dict[str, float]:
        return {"kept_fraction": self._kept_fraction}

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "ids": self._ids.clone(),
            "weights": self._weights.clone(),
            "full": torch.tensor(self._is_full),
            "kept_fraction": torch.tensor(self._kept_fraction, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._ids, self._weights = state["ids"].clone(), state["weights"].clone()
        self._is_full = bool(state["full"])
        self._kept_fraction = float(state["kept_fraction"])
