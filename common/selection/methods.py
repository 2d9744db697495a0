"""The selection methods by name. A method that needs more than a line has a file of its own and is listed here."""

import torch
from torch import Tensor

from common.selection.method import Method, Selection, unweighted
from common.selection.select import highest, lowest

__all__ = ["METHODS", "Method", "Selection"]


def _earliest(scores_B: Tensor, num: int, generator: torch.Generator | None) -> Selection:
    """The first candidates that were not dropped: in a keyed random order, a uniform draw without replacement."""
    return unweighted(lowest(torch.where(scores_B.isfinite(), 0.0, scores_B), num), num)


def _lowest(scores_B: Tensor, num: int, generator: torch.Generator | None) -> Selection:
    return unweighted(lowest(scores_B, num), num)


def _highest(scores_B: Tensor, num: int, generator: torch.Generator | None) -> Selection:
    return unweighted(highest(scores_B, num), num)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("uniform", score=None, candidates_per_selected=1, choose=_earliest),
        Method("mms", score="mms", candidates_per_selected=10, choose=_lowest),  # Algorithm 1 of arXiv:1911.06996
        Method("loss", score="loss", candidates_per_selected=10, choose=_highest),
        Method("entropy", score="entropy", candidates_per_selected=10, choose=_highest),
    )
}
