"""What a selection method is: a name, the score it looks at, and how it chooses. `methods` lists those that exist."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """The candidates chosen for one step; the loss is mean(weights · losses).

    Attributes:
        indices: (b,) int64 into the scores, on their device.
        weights: (b,) float32, >= 0, beside the indices.
        num_missing: how many fewer candidates could be chosen than were asked for; 0 unless too few were finite.
    """

    indices: Tensor
    weights: Tensor
    num_missing: int = 0


Choose = Callable[[Tensor, int, torch.Generator | None], Selection]


@dataclass(frozen=True)
class Method:
    """One value of `--method`.

    Attributes:
        name: as typed on the command line.
        score: name of the score it needs, a key of `common.scoring.SCORES`; None where any order of candidates does.
        candidates_per_selected: candidates it is designed for, per selected one; the upper bound of `auto`.
        choose: scores_B, num and a generator to a Selection; called through `select`.
    """

    name: str
    score: str | None
    candidates_per_selected: int
    choose: Choose

    def select(self, scores_B: Tensor, num: int, *, generator: torch.Generator | None = None) -> Selection:
        """Choose `num` of the candidates.

        Args:
            scores_B: (B,) float32, of the score this method names; NaN marks a dropped candidate, never chosen.
            num: how many, >= 0.
            generator: on the device of the scores, keyed on (seed, chunk); the source of all randomness of methods that
                sample. The ones that rank need none: their ties go to the earlier candidate.

        Raises:
            ValueError: the scores are not a vector, or `num` is negative.
        """
        return self.choose(scores_B, num, generator)


def unweighted(indices_b: Tensor, num: int) -> Selection:
    """A selection in which every sample counts the same, of `num` that were asked for."""
    weights_b = torch.ones(len(indices_b), dtype=torch.float32, device=indices_b.device)
    return Selection(indices_b, weights_b, num_missing=num - len(indices_b))
