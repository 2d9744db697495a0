"""Every other one of the hardest: half of the batch's room goes to candidates that are not quite as hard."""

import torch

from common.selection.method import Offer, Selection, Setting, Stateless, unweighted
from common.selection.select import highest


class EveryOther(Stateless):
    """The highest loss, the third highest, the fifth, …, each with weight 1."""

    scores = ("loss",)  # what scorers compute of every candidate
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        pass

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        return unweighted(highest(offer.scores["loss"], 2 * num)[::2], num)
