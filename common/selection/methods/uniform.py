"""Plain training, the baseline: the first candidates of a keyed random order."""

import torch

from common.selection.method import Offer, Selection, Setting, Stateless, earliest, unweighted


class Uniform(Stateless):
    """Takes what comes."""

    scores = ()
    lowest_is_hard = False

    def __init__(self, setting: Setting) -> None:
        pass

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        return unweighted(earliest(offer, num), num)
