"""Online batch selection by rank, after Loshchilov & Hutter 2015, arXiv:1511.06343. N = samples of the data set."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from common.selection.method import Offer, Selection, Setting, unweighted
from common.selection.select import exponential_rank_probability, pressure_at, sample_without_replacement

RANKINGS_PER_EPOCH = 10  # sorting all samples at every step would cost more than training


class Rank:
    """Draws from all samples, p exponential in the rank of the last known loss, without replacement in a batch.

    The selection pressure falls from `pressure_start` to `pressure_end` over the run. Samples of unknown loss rank
    with the highest. Ranks are renewed ten times an epoch.
    """

    scores = ("loss",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        self._start = float(setting.parameters.get("pressure_start", 100.0))
        self._end = float(setting.parameters.get("pressure_end", 1.0))
        self._num_epochs = max(setting.steps * setting.batch_size / setting.num_samples, 1e-9)
        self._ranking_every = max(1, math.ceil(setting.num_samples / (RANKINGS_PER_EPOCH * setting.batch_size)))
        self._probability_N = torch.empty(0)
        self._selections = 0
        self._pressure = self._start

    def observe(self, offer: Offer) -> None:
        pass

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        if self._selections % self._ranking_every == 0:
            losses_N = offer.scores["loss"]
            known_N = losses_N.isfinite()
            highest = losses_N[known_N].max() if known_N.any() else torch.zeros(())
            losses_N = torch.where(known_N, losses_N, highest)
            self._pressure = pressure_at(offer.progress * self._num_epochs, self._start, self._end, self._num_epochs)
            self._probability_N = exponential_rank_probability(losses_N, self._pressure)
        self._selections += 1
        allowed_N = self._probability_N
        if offer.taken is not None:
            allowed_N = allowed_N.masked_fill(offer.taken, torch.nan)
        indices_b = sample_without_replacement(allowed_N, num, generator)
        return unweighted(indices_b, num, self._probability_N[indices_b])

    def figures(self) -> dict[str, float]:
        return {"pressure": self._pressure}

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "probability": self._probability_N.clone(),
            "selections": torch.tensor(self._selections),
            "pressure": torch.tensor(self._pressure, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._probability_N = state["probability"].clone()
        self._selections = int(state["selections"])
        self._pressure = float(state["pressure"])
