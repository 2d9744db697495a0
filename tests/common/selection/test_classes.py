import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.selection.select import class_balanced_hardest, highest
from tests import reference_select as reference
from tests.common.selection.strategies import five_sigma, keyed, losses, uniforms

candidates = st.lists(st.tuples(losses, st.integers(0, 3)), max_size=14)


@given(candidates, st.integers(0, 16), st.integers(0, 10), st.permutations(range(4)), st.integers(0, 99))
@settings(deadline=None, max_examples=200)
def test_class_balanced_hardest_matches_queues_and_turns(drawn, num, tenths, class_order, seed):
    losses_B = torch.tensor([loss for loss, _ in drawn], dtype=torch.float32)
    targets_B = reference.ints([target for _, target in drawn])
    # 0.1 · tenths is off by a rounding; the exact fraction is what it means
    chosen_b = class_balanced_hardest(losses_B, targets_B, num, 0.1 * tenths, torch.tensor(class_order), keyed(seed))
    expected_b = reference.class_balanced_hardest(
        losses_B, targets_B, num, Fraction(tenths, 10), class_order, uniforms(len(losses_B), seed)
    )
    assert torch.equal(chosen_b, expected_b)


LOSSES_B = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
TARGETS_B = torch.tensor([0, 0, 0, 1, 1, 2])
ORDER_C = torch.tensor([2, 0, 1])


def test_the_hardest_of_each_class_in_turn_and_a_class_with_none_left_is_skipped():
    chosen_b = class_balanced_hardest(LOSSES_B, TARGETS_B, 6, 1.0, ORDER_C, keyed(0))
    assert chosen_b.tolist() == [5, 0, 3, 1, 4, 2]


def test_after_the_hard_share_the_turn_goes_on_with_the_next_class():
    for seed in range(10):
        chosen = class_balanced_hardest(LOSSES_B, TARGETS_B, 6, 0.3, ORDER_C, keyed(seed)).tolist()  # ceil(1.8) = 2
        assert chosen[:2] == [5, 0]
        assert TARGETS_B[chosen[2:]].tolist() == [1, 0, 1, 0]


def test_a_share_of_three_tenths_of_ten_is_three():
    losses_B = torch.arange(40, 0, -1).float()
    fourth = {
        int(class_balanced_hardest(losses_B, torch.zeros(40).long(), 10, 0.1 * 3, torch.tensor([0]), keyed(seed))[3])
        for seed in range(20)
    }
    assert len(fourth) > 1  # random already


def test_without_a_hard_share_each_of_a_class_is_as_likely():
    num_draws = 2000
    inclusion_B = torch.zeros(6)
    for seed in range(num_draws):
        inclusion_B[class_balanced_hardest(LOSSES_B, TARGETS_B, 3, 0.0, ORDER_C, keyed(seed))] += 1
    expected_B = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1])
    assert float((inclusion_B / num_draws - expected_B).abs().max()) < five_sigma(0.5, num_draws)


def test_one_class_and_a_full_hard_share_is_plain_hard_negative_mining():
    losses_B = torch.tensor([1.0, math.nan, 3.0, 3.0, math.inf])
    chosen_b = class_balanced_hardest(losses_B, torch.full((5,), 7), 4, 1.0, torch.tensor([5, 7]), keyed(0))
    assert chosen_b.tolist() == highest(losses_B, 4).tolist() == [2, 3, 0]


def test_a_class_whose_only_candidates_were_dropped_is_skipped():
    losses_B = torch.tensor([1.0, math.nan, 2.0])
    chosen_b = class_balanced_hardest(losses_B, torch.tensor([0, 1, 0]), 3, 1.0, torch.tensor([1, 0]), keyed(0))
    assert chosen_b.tolist() == [2, 0]


def test_constant_losses_take_the_earliest_of_each_class():
    chosen_b = class_balanced_hardest(torch.ones(6), TARGETS_B, 3, 1.0, ORDER_C, keyed(0))
    assert chosen_b.tolist() == [5, 0, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses_B": LOSSES_B[None]}, r"losses_B must be a vector, got shape \(1, 6\)"),
        ({"targets_B": TARGETS_B[:5]}, "losses_B and targets_B must have one length, got 6 and 5"),
        ({"targets_B": TARGETS_B.float()}, "targets_B must be integers, got torch.float32"),
        ({"targets_B": TARGETS_B + 1}, "targets_B must be classes of class_order, got 3"),
        ({"num": -1}, "num must be >= 0, got -1"),
        ({"hard_fraction": 1.1}, r"hard_fraction must be in \[0, 1\], got 1.1"),
        ({"hard_fraction": math.nan}, "hard_fraction .* got nan"),
        ({"class_order": torch.tensor([0, 1, 2, 1])}, "class_order must name every class once, got 1 twice"),
        ({"class_order": torch.tensor([], dtype=torch.int64)}, "class_order must name .* got none and target 0"),
        ({"class_order": torch.tensor([0.0, 1.0])}, "class_order must be integers"),
        ({"generator": None}, "generator must be a torch.Generator"),
    ],
)
def test_wrong_arguments_are_refused_by_name_with_the_value_seen(changes, message):
    right = {"losses_B": LOSSES_B, "targets_B": TARGETS_B, "num": 3, "hard_fraction": 0.5}
    right |= {"class_order": ORDER_C, "generator": keyed(0)}
    with pytest.raises(ValueError, match=message):
        class_balanced_hardest(**(right | changes))
