"""What can be put around every method: a uniform share, a quota for each class, a cap on weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from common.selection.method import Method, Offer, Selection, earliest
from common.selection.registry import Kind
from common.selection.select import coins, collapse_duplicates

Draw = Callable[[Offer, int, torch.Generator], Selection]

LARGEST = torch.finfo(torch.float32).max


class Composed:
    """A method with its surroundings; itself a `Method`, and the one that trainers call.

    Repeated draws are collapsed here, after everything else: `Selection.indices` holds each candidate once, with the
    probability of its first draw.

    Args:
        method: what selects.
        kind: as its registry entry says.
        uniform_fraction: share of the batch drawn uniformly, whatever the scores; for a stream the probability with
            which a candidate passes unasked. In [0, 1).
        class_quota: the largest share of a batch that one class may fill, in (0, 1]; None for no limit. What is over
            makes room for others, as long as there are any. A stream keeps it when it makes batches of its queue.
        weight_cap: the largest weight of a draw; None for no limit.
        collapse: whether repeats are; without, `Selection.indices` holds every draw, for steps of a fixed shape.
    """

    def __init__(
        self,
        method: Method,
        kind: Kind = "pool",
        *,
        uniform_fraction: float = 0.0,
        class_quota: float | None = None,
        weight_cap: float | None = None,
        collapse: bool = True,
    ) -> None:
        self.method = method
        self.scores = method.scores
        self.lowest_is_hard = method.lowest_is_hard
        self._kind = kind
        self._uniform_fraction = uniform_fraction
        self._class_quota = class_quota if kind != "stream" else None
        self._weight_cap = weight_cap
        self._collapse = collapse

    def observe(self, offer: Offer) -> None:
        self.method.observe(offer)

    def select(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        """As every method; raises ValueError for a quota on an offer without classes."""
        if self._class_quota is not None and offer.targets is None:
            raise ValueError("class_quota needs the class of each candidate")
        mixed = self._mixed_stream if self._kind == "stream" else self._mixed
        return self._collapsed(mixed(offer, num, generator))

    def figures(self) -> dict[str, float]:
        return self.method.figures()

    def state_dict(self) -> dict[str, Tensor]:
        return self.method.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.method.load_state_dict(state)

    def _mixed(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        """The uniform share, then the method's choice of what is left."""
        if self._uniform_fraction == 0 and self._class_quota is None:
            return _joined([self.method.select(offer, num, generator)], num)
        parts: list[Selection] = []
        # Rounded first: 0.29 · 100 is a little less than 29.
        self._fill(parts, self._uniform, offer, math.floor(round(self._uniform_fraction * num, 6)), num, generator)
        self._fill(parts, self.method.select, offer, num, num, generator)
        return _joined(parts, num)

    def _fill(
        self, parts: list[Selection], draw: Draw, offer: Offer, goal: int, num: int, generator: torch.Generator
    ) -> None:
        """Draw until there are `goal`. What the quota turns down is drawn anew, each time with one more class full."""
        while (missing := goal - sum(len(part.indices) for part in parts)) > 0:
            chosen = torch.cat([part.indices for part in parts]) if parts else torch.empty(0, dtype=torch.int64)
            part = draw(self._left(offer, chosen, num), missing, generator)
            kept = self._within_quota(offer, chosen, part, num)
            parts.append(kept)
            if len(kept.indices) in (0, len(part.indices)):  # complete, or nothing is left
                break

    def _uniform(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        """The uniform share. Candidates come in a random order, so its first ones are a draw; all samples do not."""
        if self._kind != "planned":
            rows = earliest(offer, num)
        elif offer.taken is None:
            rows = _distinct(len(offer), num, generator)
        else:
            allowed = (~offer.taken).nonzero()[:, 0]
            rows = allowed[_distinct(len(allowed), num, generator)]
        return Selection(rows, torch.ones(len(rows)), 0, torch.full((len(rows),), 1 / max(len(offer), 1)))

    def _left(self, offer: Offer, chosen: Tensor, num: int) -> Offer:
        """What may still be chosen: nothing of an earlier part, and no class that is full."""
        if len(chosen) == 0:
            return offer
        taken_B = torch.zeros(len(offer), dtype=torch.bool)
        taken_B[chosen] = True
        if self._class_quota is not None and offer.targets is not None:
            counts_C = torch.bincount(offer.targets[chosen], minlength=int(offer.targets.max()) + 1)
            taken_B |= counts_C[offer.targets] >= self._most_per_class(num)
        if self._kind == "planned":  # its NaN is an unknown loss
            return replace(offer, taken=taken_B if offer.taken is None else offer.taken | taken_B)
        return offer.without(taken_B)

    def _within_quota(self, offer: Offer, chosen: Tensor, part: Selection, num: int) -> Selection:
        """Of what was just selected, in its order, as many of each class as the quota leaves room for."""
        if self._class_quota is None or offer.targets is None:
            return part
        classes = offer.targets[torch.cat([chosen, part.indices])]
        counts: dict[int, int] = {}
        keep = []
        for place, label in enumerate(classes.tolist()):
            counts[label] = counts.get(label, 0) + 1
            if place >= len(chosen):
                keep.append(counts[label] <= self._most_per_class(num))
                counts[label] -= not keep[-1]
        kept = torch.tensor(keep, dtype=torch.bool)
        probability = None if part.probability is None else part.probability[kept]
        return Selection(part.indices[kept], part.weights[kept], 0, probability)

    def _most_per_class(self, num: int) -> int:
        return math.ceil(round((self._class_quota or 1.0) * num, 6))  # 0.28 · 100 is a little more than 28

    def _mixed_stream(self, offer: Offer, num: int, generator: torch.Generator) -> Selection:
        """The method's coins, and for those that fell the wrong way a second one of the uniform share."""
        selection = self.method.select(offer, num, generator)
        if self._uniform_fraction == 0:
            return selection
        again = coins(torch.full((len(offer),), self._uniform_fraction), generator) & offer.available
        again[selection.indices] = False
        rows = again.nonzero()[:, 0]
        extra = Selection(rows, torch.ones(len(rows)), 0, torch.full((len(rows),), self._uniform_fraction))
        return _joined([selection, extra], len(selection.indices) + len(rows))

    def _collapsed(self, selection: Selection) -> Selection:
        weights_b, probability = selection.weights, selection.probability
        if self._weight_cap is not None:
            weights_b = weights_b.clamp(max=self._weight_cap)
        if not self._collapse or len(set(selection.indices.tolist())) == len(selection.indices):  # the usual batch
            weights_b = weights_b.float().clamp(max=LARGEST)
            return Selection(selection.indices, weights_b, selection.num_missing, probability)
        rows_u, weights_u = collapse_duplicates(selection.indices, weights_b)
        if probability is not None:
            ordered_b, places_b = selection.indices.sort(stable=True)
            is_first_b = torch.ones_like(ordered_b, dtype=torch.bool)
            is_first_b[1:] = ordered_b[1:] != ordered_b[:-1]
            probability = probability[places_b[is_first_b].sort().values]  # first draws, in the order of rows_u
        return Selection(rows_u, weights_u.clamp(max=LARGEST), selection.num_missing, probability)


def _distinct(total: int, num: int, generator: torch.Generator) -> Tensor:
    """`num` different numbers below `total`, or all of them: Fisher-Yates on those touched, O(num)."""
    num = min(num, total)
    moved: dict[int, int] = {}
    drawn = []
    for place, u in enumerate(torch.rand(num, generator=generator, dtype=torch.float64).tolist()):
        other = place + int(u * (total - place))
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return torch.tensor(drawn, dtype=torch.int64)


def _joined(parts: list[Selection], num: int) -> Selection:
    if not parts:
        return Selection(torch.empty(0, dtype=torch.int64), torch.empty(0), num)
    if len(parts) == 1 and len(parts[0].indices):
        part = parts[0]
        return Selection(part.indices, part.weights, max(0, num - len(part.indices)), part.probability)
    indices = torch.cat([part.indices for part in parts])
    probabilities = [
        part.probability if part.probability is not None else torch.ones(len(part.indices)) for part in parts
    ]
    known = any(part.probability is not None and len(part.indices) for part in parts)
    return Selection(
        indices,
        torch.cat([part.weights for part in parts]),
        max(0, num - len(indices)),
        torch.cat(probabilities) if known else None,
    )
