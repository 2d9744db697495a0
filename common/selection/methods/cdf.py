"""Sampling by the inverse cumulative distribution, after Knutsson et al. 2023, 10.2312/vcbm.20231212."""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.selection.method import Offer, Selection, Setting, earliest, unweighted
from common.selection.select import inverse_cdf, proportional_probability

SMOOTHING = 0.9
NUM_INITIAL = 10  # offers whose mean loss counts as the initial one


class Cdf:
    """Uniform until the loss has fallen below a share of its initial value, then proportional draws with replacement.

    Unweighted. The original measures the fall on the test set; here it is the loss of uniform candidates, smoothed,
    against the mean of the first ten offers. The switch is thrown once.
    """

    lowest_is_hard = False

    def __init__(self, importance: str, setting: Setting) -> None:
        self.scores = (importance,) if importance == "loss" else (importance, "loss")
        self._share = float(setting.parameters.get("switch_share", 0.5))
        self._state = torch.zeros(4, dtype=torch.float64)  # offers seen, initial loss, smoothed loss, switched

    def observe(self, offer: Offer) -> None:
        losses_B = offer.scores["loss"]
        losses_B = losses_B[losses_B.isfinite()]
        if len(losses_B) == 0:
            return
        seen, initial, smoothed, switched = self._state.tolist()
        loss = float(losses_B.double().mean())
        if seen < NUM_INITIAL:
            initial = smoothed = (initial * seen + loss) / (seen + 1)
        else:
            smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
            switched = switched or smoothed < self._share * initial
        self._state = torch.tensor([seen + 1, initial, smoothed, float(switched)], dtype=torch.float64)

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        importance_B = offer.scores[self.scores[0]].masked_fill(~offer.available, torch.nan)
        if not self._state[3] or int(importance_B.isfinite().sum()) < num:
            return unweighted(earliest(offer, num), num)
        indices_b = inverse_cdf(importance_B, torch.rand(num, generator=generator, dtype=torch.float64))
        return unweighted(indices_b, num, proportional_probability(importance_B)[indices_b])

    def figures(self) -> dict[str, float]:
        return {"switched": float(self._state[3]), "loss_over_initial": float(self._state[2] / self._state[1])}

    def state_dict(self) -> dict[str, Tensor]:
        return {"state": self._state.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._state = state["state"].clone()


def cdf_loss(setting: Setting) -> Cdf:
    """Importance is the loss."""
    return Cdf("loss", setting)


def cdf_gradnorm(setting: Setting) -> Cdf:
    """Importance is the gradient-norm bound."""
    return Cdf("gradient-norm", setting)
