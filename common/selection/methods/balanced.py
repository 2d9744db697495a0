"""Class-balanced hard-negative mining, as the authors of MMS compare with (arXiv:1911.06996, their released code)."""

import torch

from common.selection.method import Offer, Selection, Setting, Stateless, unweighted
from common.selection.select import class_balanced_hardest

HARD_FRACTION_PER_EPOCH = 0.1


class LossBalanced(Stateless):
    """The hardest left of each class in turn, for a share that grows by a tenth each epoch; the rest at random."""

    scores = ("loss",)
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        self._num_classes = setting.num_classes

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        if offer.targets is None:
            raise ValueError("loss-balanced needs the class of each candidate")
        hard_fraction = max(min(1.0, HARD_FRACTION_PER_EPOCH * (offer.epoch + 1)), 0.0)
        class_order = torch.randperm(self._num_classes, generator=generator)
        losses_B = offer.scores["loss"]
        return unweighted(
            class_balanced_hardest(losses_B, offer.targets, num, hard_fraction, class_order, generator), num
        )
