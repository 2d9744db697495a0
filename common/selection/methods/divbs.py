"""Diverse batch selection, after Hong et al. 2024 (DivBS), arXiv:2406.04872."""

import torch

from common.selection.method import Offer, Selection, Setting, Stateless, unweighted
from common.selection.select import diverse_factored


class DivBS(Stateless):
    """Candidates whose last-layer gradients together point where all of them point, each adding something new.

    The gradients are outer products of p - y and the features; only their factors travel and are multiplied.
    """

    scores = ("loss",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        pass

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        if offer.errors is None or offer.features is None:
            raise ValueError("divbs needs errors and features of the last layer")
        rows = offer.available.nonzero()[:, 0]
        chosen = diverse_factored(offer.errors[rows].float(), offer.features[rows].float(), num)
        return unweighted(rows[chosen], num)
