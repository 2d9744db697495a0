import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.scoring import SCORES
from common.selection.method import unweighted
from common.selection.methods import METHODS, Method
from common.selection.select import highest

SCORES_B = torch.tensor([3.0, 1.0, math.nan, 2.0, 1.0, 5.0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("uniform", [0, 1, 3]), ("mms", [1, 4, 3]), ("loss", [5, 0, 3]), ("entropy", [5, 0, 3])],
)
def test_each_method_takes_the_hard_end_of_its_score(name, expected):
    selection = METHODS[name].select(SCORES_B, 3)
    assert selection.indices.tolist() == expected
    assert selection.indices.dtype == torch.int64
    assert torch.equal(selection.weights, torch.ones(3))
    assert selection.num_missing == 0


numbers = st.one_of(st.integers(-1, 1).map(float), st.floats(width=32))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
@given(values=st.lists(numbers, max_size=10), num=st.integers(0, 12))
@settings(deadline=None, max_examples=40)
def test_every_method_takes_each_finite_candidate_at_most_once_and_says_what_is_missing(method, values, num):
    scores_B = torch.tensor(values, dtype=torch.float32)
    selection = method.select(scores_B, num)
    num_finite = int(scores_B.isfinite().sum())
    assert len(selection.indices) == len(selection.weights) == min(num, num_finite)
    assert selection.num_missing == num - len(selection.indices)
    assert len(set(selection.indices.tolist())) == len(selection.indices)
    assert bool(scores_B[selection.indices].isfinite().all())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_scores_select_the_earliest_candidates_without_touching_a_generator(method, value):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state(), torch.get_rng_state()
    selection = method.select(torch.full((8,), value), 3, generator=generator)
    assert selection.indices.tolist() == [0, 1, 2]
    assert torch.equal(generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_methods_are_listed_under_their_own_names_with_known_scores():
    assert list(METHODS) == ["uniform", "mms", "loss", "entropy"]
    for name, method in METHODS.items():
        assert method.name == name
        assert method.score is None or method.score in SCORES
        assert method.candidates_per_selected == (1 if name == "uniform" else 10)


def test_a_new_method_is_a_function_and_one_line():
    def every_other_of_the_highest(scores_B, num, generator):
        return unweighted(highest(scores_B, 2 * num)[::2], num)

    method = Method("every-other", score="loss", candidates_per_selected=10, choose=every_other_of_the_highest)
    assert method.select(SCORES_B, 2).indices.tolist() == [5, 3]
