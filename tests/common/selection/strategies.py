"""Vectors that hypothesis tries: ties, zeros and constants are common, and some values are not finite."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

not_finite = st.sampled_from([math.nan, math.inf, -math.inf])
small = st.integers(0, 3).map(float)
losses = st.one_of(small, st.floats(0, 1e6, width=32), not_finite)


def vectors(elements: st.SearchStrategy[float], max_size: int = 10) -> st.SearchStrategy[Tensor]:
    lists = st.one_of(
        st.lists(elements, max_size=max_size),
        st.tuples(elements, st.integers(0, max_size)).map(lambda pair: [pair[0]] * pair[1]),
    )
    return lists.map(lambda values: torch.tensor(values, dtype=torch.float32))


def keyed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniforms(num: int, seed: int) -> Tensor:
    """What a function that takes `num` numbers from `keyed(seed)` sees."""
    return torch.rand(num, generator=keyed(seed), dtype=torch.float64)


def five_sigma(probability: float, num_draws: int) -> float:
    """Five standard deviations of a share over independent draws: √(p(1-p)/n)·5."""
    return 5 * math.sqrt(probability * (1 - probability) / num_draws)
