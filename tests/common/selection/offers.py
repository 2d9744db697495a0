"""Every method, in each of the ways that it can select, and offers for it. B = candidates, N = samples, C = classes."""

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from common.selection.method import Method, Offer, Setting
from common.selection.methods import load_method
from common.selection.registry import METHODS
from tests.common.selection.strategies import losses, vectors

NUM_CLASSES = 3
BATCH_SIZE = 4
ALWAYS = 1e-3  # a threshold that every tau is above
SWITCHED = {"state": torch.tensor([20.0, 4.0, 1.0, 1.0], dtype=torch.float64)}  # of cdf: seen, initial, smoothed, on


@dataclass(frozen=True)
class Way:
    """One way in which a method selects."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 1

    def __str__(self) -> str:
        shown = "".join(f" {name}={value:g}" for name, value in self.parameters.items())
        return f"{self.name}{shown}{' on' if self.state else ''} epoch {self.epoch}"

    @property
    def kind(self) -> str:
        return METHODS[self.name].kind

    def make(self, num_samples: int = 16, **changes: Any) -> Method:
        method = make(self.name, num_samples=num_samples, **(self.parameters | changes))
        if self.state:
            method.load_state_dict(self.state)
        return method


HARDEST = [Way(name) for name in ("mms", "loss", "entropy", "rho-loss")]
UNIFORM = [Way("uniform"), Way("gradient-norm"), Way("cdf-loss"), Way("cdf-gradnorm")]
SOFT = [Way(way.name, {"temperature": 0.5}) for way in HARDEST]
WITH_REPLACEMENT = [
    Way("biased-importance"),
    Way("biased-importance", {"bias_power": 1.0, "temperature": 2.0}),
    Way("gradient-norm", {"tau_threshold": ALWAYS}),
    Way("gradient-norm", {"tau_threshold": ALWAYS, "temperature": 0.5}),
    Way("cdf-loss", state=SWITCHED),
    Way("cdf-gradnorm", state=SWITCHED),
]
POOL = [*HARDEST, *UNIFORM, *SOFT, *WITH_REPLACEMENT, Way("loss-balanced"), Way("divbs")]
STREAM = [Way(name, epoch=epoch) for name in ("selective-backprop", "stale-selective-backprop") for epoch in (0, 1)]
PLANNED = [Way("rank"), Way("infobatch")]
EVERY = [*POOL, *STREAM, *PLANNED]


def make(name: str, *, num_samples: int = 16, batch_size: int = BATCH_SIZE, steps: int = 100, **parameters) -> Method:
    """A method for `num_samples`, with a table of zeros for rho-loss."""
    table = torch.zeros(num_samples)
    return load_method(name, Setting(num_samples, NUM_CLASSES, batch_size, steps, parameters, table))


def offer_of(way: Way, *rows: Tensor, targets: Tensor | None = None, **changes: Any) -> Offer:
    """An offer of these scores, repeated if the method asks for more of them. Gradients of divbs: the score times e_0.

    With such gradients divbs takes the candidate of the largest score and then finds nothing new in the others.
    """
    names = way.make().scores
    first_B = rows[0]
    factor_B1 = torch.nan_to_num(first_B, nan=0.0, posinf=0.0, neginf=0.0)[:, None].clamp(max=1e4)
    return Offer(
        dict(zip(names, rows if len(rows) > 1 else [first_B] * len(names), strict=True)),
        torch.arange(len(first_B)),
        targets=torch.arange(len(first_B)) % NUM_CLASSES if targets is None else targets,
        errors=factor_B1.half(),
        features=torch.ones_like(factor_B1).half(),
        **({"epoch": way.epoch} | changes),
    )


@st.composite
def offers(draw: st.DrawFn, way: Way) -> Offer:
    """Some ties, zeros, constants and values that are not finite; for a planned method these are unknown losses."""
    rows = draw(vectors(losses))
    others = draw(st.permutations(rows.tolist()))
    names = way.make().scores
    rows = [rows, torch.tensor(others, dtype=torch.float32)][: max(1, len(names))]
    classes = st.lists(st.integers(0, NUM_CLASSES - 1), min_size=len(rows[0]), max_size=len(rows[0]))
    return offer_of(way, *rows, targets=torch.tensor(draw(classes), dtype=torch.int64))


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def tolerance(probability_B: Tensor, num_draws: int) -> Tensor:
    """How far each share over `num_draws` independent draws may stray: √(30 p(1-p)/n) + 10/n, and 0 for p = 0 and 1.

    By Bernstein's inequality a share strays further with probability below 2 exp(-15) = 6e-7, however small p is. Seeds
    are fixed, so a test that passes goes on passing.
    """
    variance_B = (probability_B * (1 - probability_B)).clamp(min=0)
    return torch.where(variance_B > 0, (30 * variance_B / num_draws).sqrt() + 10 / num_draws, 1e-6)
