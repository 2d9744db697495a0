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
    with the highest. Ranks are renewed ten times an epoch, counted in steps: however many draws a step needs.
    """

    scores = ("loss",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        self._start = float(setting.parameters.get("pressure_start", 100.0))
        self._end = float(setting.parameters.get("pressure_end", 1.0))
        self._steps = setting.steps
        self._num_epochs = max(setting.steps * setting.batch_size / setting.num_samples, 1e-9)
        self._ranking_every = max(1, math.ceil(setting.num_samples / (RANKINGS_PER_EPOCH * setting.batch_size)))
        self._probability_N = torch.empty(0)
        self._ranked_at: int | None = None  # the step
        self._pressure = self._start

    def observe(self, offer: Offer) -> None:
        pass

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        step = round(offer.progress * self._steps)
        if self._ranked_at is None or step >= self._ranked_at + self._ranking_every:
            losses_N = offer.scores["loss"]
            known_N = losses_N.isfinite()
            highest = losses_N[known_N].max() if known_N.any() else torch.zeros(())
            losses_N = torch.where(known_N, losses_N, highest)
            self._pressure = pressure_at(offer.progress * self._num_epochs, self._start, self._end, self._num_epochs)
            self._probability_N = exponential_rank_probability(losses_N, self._pressure)
            self._ranked_at = step
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
            "ranked_at": torch.tensor(-1 if self._ranked_at is None else self._ranked_at),
            "pressure": torch.tensor(self._pressure, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._probability_N = state["probability"].clone()
        self._ranked_at = None if (step := int(state["ranked_at"])) < 0 else step
        self._pressure = float(state["pressure"])
