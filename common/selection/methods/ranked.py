"""Methods that take the hardest candidates by one score: mms, loss, entropy, rho-loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from common.selection.method import Offer, Selection, Setting, Stateless, unweighted
from common.selection.sampling import uniforms
from common.selection.select import highest, lowest


class Ranked(Stateless):
    """The `num` hardest candidates; with a temperature, a draw without replacement that prefers the harder ones.

    Args:
        score: its name.
        lowest_is_hard: which end is hard.
        temperature: 0 takes the hardest. T > 0 draws with p ∝ exp(h / T), where h is the hardness in standard
            deviations of the finite candidates: T means the same for every score; 1 is mild, .1 nearly hard.
        key: turns an offer into what is ranked; by default the score itself.
    """

    def __init__(
        self,
        score: str,
        *,
        lowest_is_hard: bool = False,
        temperature: float = 0.0,
        key: Callable[[Offer], Tensor] | None = None,
    ) -> None:
        self.scores = (score,)
        self.lowest_is_hard = lowest_is_hard
        self._temperature = temperature
        self._key = key or (lambda offer: offer.scores[score])

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        keys_B = self._key(offer)
        if self._temperature == 0:
            return unweighted((lowest if self.lowest_is_hard else highest)(keys_B, num), num)
        log_p_B = _log_probability(-keys_B if self.lowest_is_hard else keys_B, self._temperature)
        # As `sample_without_replacement`, in logarithms: at a low temperature most p are below the smallest float.
        times_B = -torch.log1p(-uniforms(len(log_p_B), generator, log_p_B.device))
        indices_b = highest(log_p_B - times_B.log().clamp(min=-1e3), num)
        return unweighted(indices_b, num, log_p_B[indices_b].exp().float())


def _log_probability(hardness_B: Tensor, temperature: float) -> Tensor:
    """log softmax of the standardised hardness over T, over the finite candidates; NaN for the others. (B,) float64."""
    finite_B = hardness_B.isfinite()
    finite = hardness_B[finite_B].double()
    log_p_B = torch.full_like(hardness_B, torch.nan, dtype=torch.float64)
    if len(finite) == 0:
        return log_p_B
    spread = finite.std(correction=0).clamp(min=torch.finfo(torch.float32).tiny)
    below = (finite - finite.max()) / spread / temperature
    log_p_B[finite_B] = below.clamp(min=-1e300).log_softmax(dim=0)
    return log_p_B


def mms(setting: Setting) -> Ranked:
    """Algorithm 1 of Weinstein, Fine & Hel-Or 2019, arXiv:1911.06996."""
    return Ranked("mms", lowest_is_hard=True, temperature=setting.parameters.get("temperature") or 0.0)


def loss(setting: Setting) -> Ranked:
    """Hard-negative mining: the highest loss."""
    return Ranked("loss", temperature=setting.parameters.get("temperature") or 0.0)


def entropy(setting: Setting) -> Ranked:
    """The highest entropy of the prediction; needs no labels."""
    return Ranked("entropy", temperature=setting.parameters.get("temperature") or 0.0)


def rho_loss(setting: Setting) -> Ranked:
    """The highest loss - irreducible loss, after Mindermann et al. 2022, arXiv:2206.07137."""
    table_N = setting.irreducible
    if table_N is None:
        raise ValueError("rho-loss needs --irreducible FILE, which `marginstream irreducible` writes")
    temperature = setting.parameters.get("temperature") or 0.0
    return Ranked("loss", temperature=temperature, key=lambda offer: offer.scores["loss"] - table_N[offer.ids])
